"""The weight bus: the learner publishes weight versions in an object store, and readers pull them.

    learner --encode, upload--> shards, manifest, HEAD --download, verify--> reader (an engine)

Terms:
    version   The weights of one publication, numbered from 1.
    form      An encoding of a version in the store: a delta or an anchor.
    anchor    A form that holds all weights.
    delta     A form that holds the difference from an older version, its base.
    manifest  The JSON object that lists a form's tensors and hashes.
    HEAD      The object that lists the versions that can be fetched.
    epoch     The number of a writer. The writer with the highest epoch may publish.
    part      The slice of a flattened tensor that one rank publishes.
    piece     A slice of a part with at most 16 Mi elements.
    shard     A *.bin object that holds many encoded pieces.
    hop       The download of one form.
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
