"""Provides what every job needs: session, run directory, metrics, progress and logs."""
