"""The weight bus: the learner publishes weight versions in an object store, and readers pull them.

    learner ranks                       object store                     reader (an engine)
    parts --encode, upload--> shards, manifests, then HEAD --download, verify--> tensors

Terms:
    version   The weights of one publication, numbered from 1.
    form      An encoding of a version in the store: a delta or an anchor.
    anchor    A form that holds all weights.
    delta     A form that holds the difference from an older version, its base.
    manifest  The JSON object that lists a form's tensors, pieces and hashes.
    HEAD      The object that lists the versions that can be fetched.
    epoch     The number of a writer. A new writer raises it in HEAD, which stops older writers.
    part      The slice of a flattened tensor that one rank publishes.
    piece     A slice of a part with at most 16 Mi elements.
    shard     A *.bin object that holds the encoded bytes of many pieces.
    hop       One step of a reader towards a version, which loads one form.
    lease     A reader's request to keep the versions that it is downloading.
    pin       A request to keep a version until it is unpinned.
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
