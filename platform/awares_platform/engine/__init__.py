"""One vLLM engine: its launch, the weights that it loads while it generates, and the episodes that it plays."""
