"""Scores answers, measures the decisions to crop, and summarises with confidence intervals."""
