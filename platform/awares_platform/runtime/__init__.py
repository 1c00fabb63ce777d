"""Provides what jobs need: session, lease, watches, run directory, metrics, progress and logs."""
