"""What a job runs in: its session, its run directory, metrics, progress and logs."""
