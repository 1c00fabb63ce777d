"""Training core that SFT and the GRPO learner share, and SFT's worker.

policy      resolve a policy to a local directory, load it, export it      fit       do a policy's files belong together?
lora        adapters; off: the reference; merged on export                 zero      DeepSpeed from our settings; the full state
checkpoint  all ranks save, Ray Train publishes to S3, resume              failure   which failures are worth a restart
order       which samples each step and worker sees                       schedule  learning rates
examples    curated samples to micro-batches                              tuner     SFT's loop on one rank
"""
