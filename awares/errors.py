"""The exceptions that a user can meet. Their messages name the value, the place and the remedy.

AwaresError
├── ConfigError      A setting is wrong. This error is a ValueError, too.
├── DataError        An image, a row or a file is unreadable.
└── PolicyError      A model, a processor or a checkpoint does not fit the run.

The platform defines further subclasses, for example in store/errors.py, weights/manifest.py and
engine/launch.py.
"""


class AwaresError(Exception):
    """Base of every error that a user can meet."""


class ConfigError(AwaresError, ValueError):
    """A setting is wrong."""


class DataError(AwaresError):
    """An image, row or file is unreadable."""


class PolicyError(AwaresError):
    """A model, processor or checkpoint does not fit the run."""
