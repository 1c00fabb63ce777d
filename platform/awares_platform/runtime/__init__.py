"""The surroundings of a job: its session, run directory, metrics, progress and logs."""
