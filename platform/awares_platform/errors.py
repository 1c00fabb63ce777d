"""Exceptions of the distributed layer.

awares.errors.AwaresError
├── StoreError             an object store operation failed; names s3://bucket/key
│   ├── NotFound           no such object
│   ├── MissingBucket      no such bucket (not a NotFound: an absent object may be fine, an absent bucket never is)
│   ├── PreconditionFailed a conditional write lost against another writer
│   ├── AccessDenied       credentials absent, wrong or not allowed to do this
│   └── StoreUnavailable   no answer, or only errors, within the retry budget
└── LaunchError            a part that a run needs (Ray, SeaweedFS, a port, one source tree) did not come up
"""

from awares.errors import AwaresError


class StoreError(AwaresError):
    """An object store operation failed."""


class NotFound(StoreError):
    """No such object."""


class MissingBucket(StoreError):
    """No such bucket."""


class PreconditionFailed(StoreError):
    """A conditional write lost against another writer."""


class AccessDenied(StoreError):
    """Credentials are absent, wrong or not allowed to do this."""


class StoreUnavailable(StoreError):
    """No answer, or only errors, within the retry budget."""


class LaunchError(AwaresError):
    """A part that a run needs did not come up."""
