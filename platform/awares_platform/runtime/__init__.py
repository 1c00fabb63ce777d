"""Provides a job's session, run directory, metrics, progress and logs."""
