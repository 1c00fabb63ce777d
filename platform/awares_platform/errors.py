"""Exceptions of the platform. All derive from awares.errors.AwaresError; the CLI prints one line.

    AwaresError
    ├── StoreError               an object store call failed; the message names s3://bucket/key
    │   ├── NotFound             the object does not exist
    │   ├── MissingBucket        the bucket does not exist
    │   ├── PreconditionFailed   another writer was first
    │   ├── AccessDenied         the credentials are absent, wrong or insufficient
    │   └── StoreUnavailable     the store did not answer within the retry budget
    ├── LaunchError              a part of a run did not start, such as Ray, SeaweedFS or a port
    ├── WeightsError             weights are absent, damaged or unfit (weights/manifest.py)
    │   └── WriterFenced         another learner has claimed the run (weights/writer.py)
    ├── ConfigError              a setting is wrong (awares/errors.py)
    └── DataError                a data set or an image is absent or damaged (awares/errors.py)

MissingBucket is not a NotFound: callers expect that an object may be absent, never a bucket.
"""

from awares.errors import AwaresError


class StoreError(AwaresError):
    """An object store operation failed."""


class NotFound(StoreError):
    """The object does not exist."""


class MissingBucket(StoreError):
    """The bucket does not exist."""


class PreconditionFailed(StoreError):
    """A conditional write failed because another writer was first."""


class AccessDenied(StoreError):
    """The credentials are absent, wrong or insufficient."""


class StoreUnavailable(StoreError):
    """The store gave no answer, or only errors, within the retry budget."""


class LaunchError(AwaresError):
    """A part that a run needs did not start."""
