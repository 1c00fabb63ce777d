"""The training core that SFT and the GRPO learner share.

source      find a policy, as a local directory      export      publish a policy, with its lineage
identity    the digest of a policy's content         lineage     refuse a policy of a stale start
policy      load the model and its processor         fit         do a policy's files fit together?
lora        adapters: attach, switch off, merge      zero        DeepSpeed ZeRO, the full state
checkpoint  all ranks save, a restarted run resumes  failure     what to retry, what to report
"""
