"""Provides what every job needs: session, watches, run directory, metrics, progress and logs."""
