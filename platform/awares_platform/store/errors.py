"""Defines the errors of the object store, and LaunchError.

The message of a StoreError states the s3:// address of the object and, if one is known, a remedy.

StoreError
+-- NotFound             The object does not exist.
+-- MissingBucket        The bucket does not exist.
+-- PreconditionFailed   Another writer has created or changed the object.
+-- AccessDenied         The credentials are absent, wrong or insufficient.
+-- StoreUnavailable     The store gave no usable answer within the retry budget.

LaunchError              A part that a run needs, such as Ray, did not start or has failed.

MissingBucket is not a NotFound, because callers handle NotFound as a normal case.
"""

from awares.errors import AwaresError


class StoreError(AwaresError):
    """An operation of the object store failed."""


class NotFound(StoreError):
    """The object does not exist."""


class MissingBucket(StoreError):
    """The bucket does not exist."""


class PreconditionFailed(StoreError):
    """The condition of a call is not met: another writer has created or changed the object."""


class AccessDenied(StoreError):
    """The credentials are absent, wrong or insufficient."""


class StoreUnavailable(StoreError):
    """The store gave no usable answer within the retry budget."""


class LaunchError(AwaresError):
    """A part that a run needs, such as the store or Ray, did not start or has failed."""
