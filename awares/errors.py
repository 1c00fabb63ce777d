"""The exceptions that users see. Each message names the wrong value, where it is, and a remedy.

AwaresError
+-- ConfigError         A setting is wrong. This error is a ValueError, too.
+-- DataError           An image, a row or a file is unreadable or incomplete.
|   +-- TooLong         An episode about a question can exceed the engine's context.
|   +-- MissingData     A data set is not in the store yet.
+-- PolicyError         A model, a processor or a checkpoint is unsuitable for the run.
|   +-- MissingPolicy   A policy is not in the store yet, or is stale.
+-- Fenced              Another process has taken over the work of this process.
"""


class AwaresError(Exception):
    """The base class of all errors that users see."""


class ConfigError(AwaresError, ValueError):
    """Raised if a setting is wrong."""


class DataError(AwaresError):
    """Raised if an image, row or file is unreadable or incomplete."""


class TooLong(DataError):
    """Raised if an episode about a question can exceed the engine's context."""


class MissingData(DataError):
    """Raised if a data set is not in the store yet. Another job can still write it."""


class PolicyError(AwaresError):
    """Raised if a model, processor or checkpoint is unsuitable for the run."""


class MissingPolicy(PolicyError):
    """Raised if a policy is not in the store yet, or is stale. Another job can still export it.

    A policy is stale if it was trained from another policy or with other settings.
    """


class Fenced(AwaresError):
    """Raised if another process has taken over the work of this process, which must stop."""
