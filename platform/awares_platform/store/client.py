"""Creates the boto3 client of a store.

The client of a private server uses the server's own keys. For any other server, boto3 searches as
usual for credentials, certificates and proxies.
"""

import os
import threading
from typing import Any

from boto3.session import Session
from botocore.client import Config as ClientConfig
from botocore.session import Session as CoreSession

from awares_platform.config.loopback import is_loopback
from awares_platform.store.keys import StoreKeys

# A finished boto3 client is thread-safe, but the creation of a client is not.
_CREATION = threading.Lock()


def connect(
    endpoint: str | None, region: str, options: ClientConfig, keys: StoreKeys | None = None
) -> Any:
    """Return an S3 client for the server at `endpoint`, or for AWS if `endpoint` is None.

    `keys` are the keys of a private server, by default those of `endpoint`.
    """
    keys = keys or StoreKeys.of(endpoint)
    # Let only store.endpoint choose the server. Otherwise boto3 also reads AWS_ENDPOINT_URL.
    options = options.merge(ClientConfig(ignore_configured_endpoint_urls=True))
    if is_loopback(endpoint):
        options = options.merge(ClientConfig(proxies={}))
    with _CREATION:
        session = _private(keys) if keys else Session()
        return session.client("s3", endpoint_url=endpoint, region_name=region, config=options)


def _private(keys: StoreKeys) -> Session:
    """Return a session with `keys`, and with botocore's defaults for all other settings."""
    settings = {
        name: (None, None, default, convert)
        for name, (_, _, default, convert) in CoreSession.SESSION_VARIABLES.items()
    }
    for files in ("config_file", "credentials_file"):
        settings[files] = (None, None, os.devnull, None)
    # Each of these two settings is a group of further settings. Without this loop, botocore would
    # read them from the environment and from the files in ~/.aws.
    for table in ("s3", "proxies_config"):
        settings[table] = (None, None, None, None)
    core = CoreSession(session_vars=settings)
    return Session(keys.access_key, keys.secret_key, botocore_session=core)
