"""Launches one vLLM engine, loads weights during generation, and checks them with a canary."""
