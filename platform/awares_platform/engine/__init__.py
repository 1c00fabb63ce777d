"""Launches one vLLM engine, loads weights while it generates, and checks loads with a canary."""
