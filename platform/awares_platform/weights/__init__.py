"""Weights over object storage: the learner publishes versions, whoever wants one pulls it; nobody knows the fleet.

learner ranks --Publisher--> runs/<run>/weights/v00000012/{*.bin, manifest.json, anchor.json}, then HEAD   (published means complete)
                                          |
engine process <--Subscriber-- (fetch, decode, verify while generating; pause, apply, resume)      transfer.py, in vLLM's worker
engine <--extra["canary"]-- (logprobs of the learner, recomputed by the engine after every load)   canary.py

write: parts --> shards (codec) --> publish --> ledger (plan, manifests, retention) --> writer (HEAD)
read:  head (which way is cheapest) --> fetch --> assemble (codec, proof) --> subscribe --> transfer --> apply (module by module)
"""

from awares_platform.weights.manifest import Manifest, WeightsError
from awares_platform.weights.plan import Cadence, Identity
from awares_platform.weights.publish import Publisher
from awares_platform.weights.subscribe import Received, Subscriber
from awares_platform.weights.writer import WriterFenced

__all__ = [
    "Cadence",
    "Identity",
    "Manifest",
    "Publisher",
    "Received",
    "Subscriber",
    "WeightsError",
    "WriterFenced",
]
