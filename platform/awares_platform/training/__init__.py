"""The training core that SFT and the GRPO learner share.

policy, partition               load a policy's model
lora, rounding                  train adapters of the model
zero, ahead                     train with DeepSpeed ZeRO
checkpoint, snapshot, shards    store and restore the training state
export, merge                   publish the trained policy
source, start                   find a policy by its name
recipe, identity, lineage       detect that settings or policies have changed
trainer, pulse, failure         run Ray Train, and end or restart hung workers
"""
