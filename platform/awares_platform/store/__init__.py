"""The object store: one bucket and prefix of an S3 server, and the S3 server of local runs."""

from awares_platform.store.client import ObjectStore

__all__ = ["ObjectStore"]
