"""Launches one vLLM engine, loads weights while it generates, and checks them with a canary."""
