"""The boto3 client of a store.

    a private server    its own keys; neither the environment nor the files in ~/.aws count
    a server of yours   boto3's usual search for credentials, region, proxies and so on

No proxy is asked for an address on this machine.
"""

import os
import threading
from typing import Any

from boto3.session import Session
from botocore.client import Config as ClientConfig
from botocore.session import Session as CoreSession

from awares_platform.config.loopback import is_loopback
from awares_platform.store.keys import StoreKeys

# boto3 creates clients from shared state that is not thread-safe. Clients themselves are.
_CREATION = threading.Lock()


def connect(
    endpoint: str | None, region: str, options: ClientConfig, keys: StoreKeys | None = None
) -> Any:
    """An S3 client of the server at `endpoint`; None means AWS.

    `keys` are those of a private server. By default they are searched by its address.
    """
    keys = keys or StoreKeys.of(endpoint)
    if is_loopback(endpoint):
        options = options.merge(ClientConfig(proxies={}))
    with _CREATION:
        session = _private(keys) if keys else Session()
        return session.client("s3", endpoint_url=endpoint, region_name=region, config=options)


def _private(keys: StoreKeys) -> Session:
    """A session with these keys and botocore's defaults for everything else."""
    settings = {
        name: (None, None, default, convert)
        for name, (_, _, default, convert) in CoreSession.SESSION_VARIABLES.items()
    }
    for files in ("config_file", "credentials_file"):
        settings[files] = (None, None, os.devnull, None)
    # These two are tables, which botocore otherwise collects from the environment and the files.
    for table in ("s3", "proxies_config"):
        settings[table] = (None, None, None, None)
    core = CoreSession(session_vars=settings)
    return Session(keys.access_key, keys.secret_key, botocore_session=core)
