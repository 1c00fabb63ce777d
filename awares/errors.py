"""Exceptions.

AwaresError
├── ConfigError      a setting is wrong; names the key and what would be right (also a ValueError)
├── DataError        an image, row or file is unreadable; names it
└── PolicyError      a model, processor or checkpoint does not fit; names both sides
"""


class AwaresError(Exception):
    """Base of every error that a user can meet."""


class ConfigError(AwaresError, ValueError):
    """A setting is wrong."""


class DataError(AwaresError):
    """An image, row or file is unreadable."""


class PolicyError(AwaresError):
    """A model, processor or checkpoint does not fit the run."""
