"""The training core that SFT and the GRPO learner share. What each module does:

source      finds a policy and returns its local directory
identity    computes the digest of a policy's content
policy      loads the model and its processor
partition   loads a model for ZeRO-3, so that no rank ever holds the whole model
fit         checks that the files of a policy agree with each other
inputs      records the settings that decide what a policy sees, and refuses other settings
lora        attaches adapters to a model, switches them off and merges them
rounding    adds an adapter's output to a layer's output, without losing small changes
zero        trains a model with DeepSpeed ZeRO, and gathers the model's full state
ahead       prepares the next forward pass while the current one computes
checkpoint  saves the state of all ranks, and restores it after a restart
shards      writes the state as slices, which any number of ranks can read
snapshot    keeps the state of all ranks at chosen steps, and loads it
filesystem  gives Ray Train the object store as a pyarrow file system
speed       measures a trainer's FLOPs, its padding and the speed of its processor
export      publishes a policy with its lineage
merge       merges an exported adapter into the weights of its policy
lineage     refuses a policy if the policy from which its training started has changed since
recipe      lists everything that the result of a job depends on
trainer     runs Ray Train in a process that the driver watches
pulse       ends a process whose step hangs
failure     decides which failures Ray Train retries, and unwraps Ray's errors
"""
