"""Launches one vLLM engine, loads weights during generation, and checks the weights with a canary."""
