"""Launches one vLLM engine, loads new weights while it generates, and verifies each load."""
