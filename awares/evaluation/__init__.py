"""Evaluation: scores of answers, diagnostics of decisions, and summaries with intervals."""
