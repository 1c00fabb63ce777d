"""Checks a Helm release's store, Jobs API and endpoint. The chart's test pods run this module.

    python -m awares_platform.cli.probe store --config /etc/awares/setup.toml
        writes, reads and deletes one object
    python -m awares_platform.cli.probe ray --address http://<head>:8265
        expects an answer with RAY_AUTH_TOKEN and a refusal without it
    python -m awares_platform.cli.probe endpoint --url http://<service>:8000
        expects an answer with AWARES_SERVE_TOKEN and a refusal without it

A failed check is repeated for --wait seconds, because the release may still be starting.
"""

import os
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import tyro

from awares.errors import AwaresError
from awares_platform.cli.ask import ask, opener
from awares_platform.cli.guarded import guarded
from awares_platform.cli.main import print_in_any_locale
from awares_platform.config import load
from awares_platform.store.errors import LaunchError, StoreError

TOKEN = "AWARES_SERVE_TOKEN"
PAUSE_S = 2.0
TIMEOUT_S = 30.0
REFUSED = (401, 403)

commands = tyro.extras.SubcommandApp()
Wait = Annotated[float, tyro.conf.arg(metavar="SECONDS", help="How long to repeat the check.")]


@commands.command
def store(config: Path = Path("/etc/awares/setup.toml"), wait: Wait = 60.0) -> int:
    """Write, read and delete an object below the store's prefix."""
    return guarded("probe store", lambda: print(check_store(config, wait)))


@commands.command
def ray(address: str, wait: Wait = 60.0) -> int:
    """Call Ray's Jobs API with the token, and then without the token."""
    return guarded("probe ray", lambda: print(patient(lambda: check_ray(address), wait)))


@commands.command
def endpoint(url: str, wait: Wait = 60.0) -> int:
    """Ask the endpoint a question with the token, and list its models without the token."""
    return guarded("probe endpoint", lambda: print(patient(lambda: check_endpoint(url), wait)))


def check_store(config: Path, wait: float) -> str:
    """Write, read and delete an object, and return one line about it.

    Retry each call for up to `wait` seconds. Raises StoreError if the store does not keep, return
    or delete the object.
    """
    from awares_platform.store import ObjectStore

    settings = load(config).store
    bucket = ObjectStore.from_config(settings.model_copy(update={"retry_budget_s": max(wait, 1.0)}))
    key, data = f"probes/{uuid.uuid4().hex}", os.urandom(4096)
    bucket.put(key, data, if_none_match=True)
    try:
        if bucket.get(key) != data:
            raise StoreError(
                f"{settings.url}/{key}: other bytes came back than were written; "
                f"check what answers at {settings.endpoint}"
            )
    finally:
        bucket.delete(key)
    if bucket.exists(key):
        raise StoreError(
            f"{settings.url}/{key}: still there after it was deleted; "
            "let the credentials delete objects below the prefix"
        )
    return f"{settings.url}: wrote, read and deleted an object"


def check_ray(address: str) -> str:
    """Check that Ray's Jobs API answers only with the token, and return one line about it.

    With RAY_AUTH_MODE=disabled, check instead that the API answers without a token. Raises
    LaunchError if the check fails.
    """
    url = f"{address.rstrip('/')}/api/jobs/"
    token = os.environ.get("RAY_AUTH_TOKEN", "").strip()
    if os.environ.get("RAY_AUTH_MODE", "token") == "disabled":
        expect(url, status(url, None), (200,), "an open Jobs API")
        return f"{url}: answers anyone, as RAY_AUTH_MODE=disabled says"
    expect(url, status(url, token), (200,), "Ray's Jobs API with the token in RAY_AUTH_TOKEN")
    refusal = "a refusal without a token: Ray must run with RAY_AUTH_MODE=token"
    expect(url, status(url, None), REFUSED, refusal)
    return f"{url}: answers with the token, refuses without"


def check_endpoint(url: str) -> str:
    """Ask the endpoint at `url` a question, and return one line about its reply.

    If the endpoint requires a key and AWARES_SERVE_TOKEN is not set, ask no question.

    Raises EndpointError or LaunchError if the check fails.
    """
    from PIL import Image

    models = f"{url.rstrip('/')}/v1/models"
    closed = bool(os.environ.get(TOKEN, "").strip())
    if closed:
        expect(models, status(models, None), REFUSED, f"a refusal without the token in {TOKEN}")
    else:
        found = status(models, None)
        if found in REFUSED:
            return f"{url}: refuses requests without a key; the probe has none, so it does not ask"
        expect(models, found, (200,), "an open endpoint")
    with tempfile.TemporaryDirectory() as directory:
        image = Path(directory) / "probe.png"
        Image.new("RGB", (112, 112), "white").save(image)
        reply = ask(image, "What colour is this?", url, TOKEN)
    refuses = "; refuses without the token" if closed else ""
    return f"{url}: answered {reply.answer!r} in {reply.turns} turns{refuses}"


def status(url: str, token: str | None) -> int:
    """Return the HTTP status of a GET request. Raises LaunchError if no server answers."""
    headers = {"authorization": f"Bearer {token}"} if token else {}
    try:
        request = urllib.request.Request(url, headers=headers)
        with opener(url).open(request, timeout=TIMEOUT_S) as response:
            return response.status
    except urllib.error.HTTPError as error:
        return error.code
    except (OSError, ValueError) as error:
        raise LaunchError(
            f"no answer at {url} ({error}); check that its pod runs and that NetworkPolicies let "
            "this one in"
        ) from error


def expect(url: str, got: int, expected: tuple[int, ...], what: str) -> None:
    """Raise LaunchError unless the HTTP status `got` is in `expected`."""
    if got not in expected:
        statuses = " or ".join(map(str, expected))
        raise LaunchError(f"{url} answered {got}; expected {statuses}: {what}")


def patient(check: Callable[[], str], wait: float) -> str:
    """Repeat `check` until it raises no AwaresError, and return its result.

    After `wait` seconds, the last AwaresError is raised.
    """
    deadline = time.monotonic() + wait
    while True:
        try:
            return check()
        except AwaresError:
            if time.monotonic() + PAUSE_S > deadline:
                raise
        time.sleep(PAUSE_S)


if __name__ == "__main__":
    print_in_any_locale()
    sys.exit(commands.cli(prog="python -m awares_platform.cli.probe"))
