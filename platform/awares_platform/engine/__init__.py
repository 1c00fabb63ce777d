"""One vLLM engine: its launch, its weight loads during generation, and the logprob canary."""
