"""The section [store]: the address of the object store, and the retries of its calls."""

import re
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from awares_platform.config.base import Section

_URL = re.compile(r"s3://(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(?P<prefix>.*))?")


def prefix_address(url: str) -> str:
    """Return the s3:// address of a prefix without its last slash.

    Raises ValueError if `url` names no bucket, or if a part of the path is empty, "." or "..".
    """
    if not _URL.fullmatch(url):
        raise ValueError(f"{url!r} is no store address: write s3://bucket/prefix")
    url = url.rstrip("/")
    # Some S3 servers shorten such a path, so that objects are written elsewhere or cannot be found.
    if {"", ".", ".."} & {*url.removeprefix("s3://").split("/")}:
        raise ValueError(f"{url!r} has a part that is empty, '.' or '..': remove it")
    return url


class StoreConfig(Section):
    """An S3 bucket and a prefix in it.

    boto3 finds the credentials in the environment. The local store needs none.
    """

    url: str = "s3://awares/mini"
    """Bucket and prefix: `s3://bucket/prefix`."""

    endpoint: str | None = "local"
    """Address of an S3 server. "none" uses AWS. "local" starts a private SeaweedFS under
    `<run.directory>/.store`."""

    region: str = "us-east-1"
    """Region of the bucket. It is part of the signature, so other S3 servers may check it, too."""

    addressing: Literal["auto", "path", "virtual"] = "auto"
    """Where requests name the bucket: in the path, or as a virtual host (bucket.server). "auto"
    means the path for a server at `endpoint`, and the virtual host for AWS."""

    encryption: Literal["bucket", "AES256", "aws:kms", "aws:kms:dsse"] = "bucket"
    """Server-side encryption that each write asks for. "bucket" asks for none, so the store applies
    the default of the bucket. Set it if the bucket's policy requires the header."""

    kms_key: str = ""
    """Id or ARN of the KMS key that each write asks for. Empty means the bucket's key. The roles
    also need kms:GenerateDataKey and kms:Decrypt on it."""

    retry_budget_s: float = Field(default=60.0, gt=0)
    """Seconds in which a call is retried while the store is unavailable or asks to slow down. The
    last attempt may end up to 30 s later. The first call of a command waits for at most 10 s."""

    @field_validator("url")
    @classmethod
    def url_names_a_bucket(cls, url: str) -> str:
        return prefix_address(url)

    @field_validator("endpoint")
    @classmethod
    def endpoint_is_local_or_http(cls, endpoint: str | None) -> str | None:
        if endpoint in (None, "local") or endpoint.startswith(("http://", "https://")):
            return endpoint
        raise ValueError(
            f'{endpoint!r} is no endpoint: write "local", or an address that begins with '
            "http:// or https://"
        )

    @model_validator(mode="after")
    def a_key_is_for_kms(self) -> Self:
        if self.kms_key and not self.encryption.startswith("aws:kms"):
            raise ValueError(
                f"store.kms_key = {self.kms_key!r} needs store.encryption = 'aws:kms'; got "
                f"{self.encryption!r}"
            )
        return self

    @property
    def bucket(self) -> str:
        """The bucket of `url`."""
        return self.url.removeprefix("s3://").partition("/")[0]

    @property
    def prefix(self) -> str:
        """The prefix of `url`, without leading and trailing slashes. It may be empty."""
        return self.url.removeprefix("s3://").partition("/")[2].strip("/")
