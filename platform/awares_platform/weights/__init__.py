"""Weights over object storage: the learner publishes versions, whoever wants one pulls it; nobody knows the fleet.

learner --Publisher--> runs/<run>/weights/v00000012/{*.bin, manifest.json}, then HEAD   (HEAD last: published means complete)
                                          |
engine process <--Subscriber-- (prefetch and verify while generating; pause, apply, resume)      transfer.py, in vLLM's worker
engine <--extra["canary"]-- (logprobs of the learner, recomputed by the engine after every load)  canary.py

manifest --> publish, subscribe --> transfer
"""

from awares_platform.weights.manifest import Manifest, WeightsError
from awares_platform.weights.publish import Publisher, WriterFenced
from awares_platform.weights.subscribe import Subscriber

__all__ = ["Manifest", "Publisher", "Subscriber", "WeightsError", "WriterFenced"]
