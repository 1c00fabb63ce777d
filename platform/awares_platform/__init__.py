"""The platform: jobs that train, serve and evaluate a policy on Ray, vLLM and object storage."""
