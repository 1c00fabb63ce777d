"""Training core that SFT and the GRPO learner share: policies, LoRA, ZeRO, checkpoints, data order.

policy      resolve a policy to a local directory, load it, export it     lora   adapters, merged on export
zero        DeepSpeed from our settings; the full state of a sharded model
checkpoint  all ranks save, Ray Train publishes to S3, resume             order  which samples each step and worker sees
"""
