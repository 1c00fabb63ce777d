"""The training core that SFT and the GRPO learner share.

source      finds a policy and returns its local directory
identity    computes the digest of a policy's content
policy      loads the model and its processor
fit         checks that the files of a policy agree with each other
lora        attaches adapters to a model, switches them off and merges them
zero        trains a model with DeepSpeed ZeRO, and gathers its full state
checkpoint  saves the state of all ranks, and restores it after a restart
export      publishes a policy with its lineage
lineage     refuses a policy whose starting policy has changed since
failure     decides which failures Ray Train retries, and unwraps Ray's errors
"""
