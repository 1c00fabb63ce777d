"""The weight bus: the learner publishes weight versions in an object store, and readers pull them.

The learner is the writer of the versions. The writer and the readers communicate only through
objects in the store.

    learner rank 0..n                       object store                        reader (an engine)

    Publisher          runs/<run>/weights/                             Subscriber
      parts              v00000012/*.bin           weight shards         read HEAD
      -> codec.encode    v00000012/manifest.json   a delta or anchor     choose the cheapest hops
      -> upload          v00000012/anchor.json     an anchor             fetch, decode, verify
      -> HEAD            HEAD                      written last          hand out the tensors
                         leases/  pins/  wanted/   requests to the writer

Files of the writer's side:
    parts.py cuts the weights into parts. publish.py runs a publication: on every rank, shards.py
    encodes the parts and uploads them. On rank 0, cadence.py decides when an anchor is due, and
    ledger.py writes the manifests. Then writer.py overwrites HEAD, and retention.py deletes old
    versions.

Files of the reader's side:
    subscribe.py runs a download: head.py chooses the hops, fetch.py downloads the shards, and
    assemble.py decodes and verifies the tensors.

awares_platform.engine loads received tensors into vLLM and checks vLLM's logprobs (canary).

Terms:
    version   The weights of one publication. Versions are numbered upwards from 1.
    form      An encoding of a version in the store, which is a delta or an anchor. A version has a
              delta, an anchor, or both.
    anchor    A form that holds all weights, and needs no other version.
    delta     A form that holds the difference from an older version, its base.
    manifest  The JSON object that lists a form's tensors, their pieces and the pieces' hashes.
    HEAD      The object that lists the versions that can be fetched. Every publication overwrites
              HEAD.
    epoch     The number of a writer. A new writer raises the epoch in HEAD. Older writers can then
              no longer publish.
    part      The slice of a flattened tensor that one rank publishes.
    piece     A slice of a part with at most 16 Mi elements.
    shard     A *.bin object that holds the encoded bytes of many pieces.
    hop       One step of a reader towards a version: the reader loads one form.
    lease     A reader's request to keep the versions that it is downloading.
    pin       A request to keep a version until it is unpinned, by a user or by the GRPO job.
"""

from awares_platform.weights.cadence import Cadence, Identity
from awares_platform.weights.manifest import Manifest, WeightsError
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
