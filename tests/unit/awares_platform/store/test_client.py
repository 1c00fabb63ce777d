"""Tests which environment variables the S3 client obeys.

Variables for AWS and for proxies affect only clients of a user's server, not those of the server
that the platform starts.
"""

import http.server
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from awares_platform.config.store import StoreConfig
from awares_platform.store import ObjectStore
from awares_platform.store.errors import StoreError
from awares_platform.store.keys import FILE, StoreKeys, variable
from tests import hostile

ROOT = Path(__file__).parents[4]
LISTING = b"""<?xml version="1.0" encoding="UTF-8"?>
<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>awares</Name>
<IsTruncated>false</IsTruncated><KeyCount>0</KeyCount></ListBucketResult>"""


class Listing(http.server.BaseHTTPRequestHandler):
    """A handler that answers each request with an empty S3 listing.

    The handler records the path and the headers of each request.
    """

    def do_GET(self) -> None:
        self.server.seen.append((self.path, self.headers))
        self.send_response(200)
        self.send_header("content-length", str(len(LISTING)))
        self.send_header("content-type", "application/xml")
        self.end_headers()
        self.wfile.write(LISTING)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[http.server.HTTPServer]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Listing)
    server.seen = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def proxy() -> Iterator[http.server.HTTPServer]:
    with hostile.proxy() as proxy:
        yield proxy


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in hostile.everything(9, tmp_path):
        monkeypatch.delenv(name, raising=False)


def store(server: http.server.HTTPServer) -> StoreConfig:
    endpoint = f"http://127.0.0.1:{server.server_port}"
    return StoreConfig(url="s3://awares/x", endpoint=endpoint, retry_budget_s=0.2)


@pytest.fixture
def private(
    server: http.server.HTTPServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[StoreConfig]:
    """Yield the store settings for a private server.

    An environment variable holds the path of the file with the server's keys.
    """
    config = store(server)
    assert config.endpoint
    keys = StoreKeys(config.endpoint, "its-own-key", "its-own-secret")
    keys.write(tmp_path / FILE)
    for name, value in variable(tmp_path).items():
        monkeypatch.setenv(name, value)
    yield config


GROUPS = ["everything", "proxies", *hostile.aws(Path(tempfile.gettempdir()))]


def hostile_variables(group: str, port: int, directory: Path) -> dict[str, str]:
    if group == "everything":
        return hostile.everything(port, directory)
    return hostile.proxies(port) if group == "proxies" else hostile.aws(directory)[group]


@pytest.mark.parametrize("group", GROUPS)
def test_no_variable_reaches_a_private_server(
    group: str,
    private: StoreConfig,
    server: http.server.HTTPServer,
    proxy: http.server.HTTPServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in hostile_variables(group, proxy.server_port, tmp_path).items():
        monkeypatch.setenv(name, value)
    ObjectStore(private).check()
    [(path, headers)] = server.seen
    assert path.startswith("/awares?")
    assert "Credential=its-own-key/" in headers["authorization"]
    assert "/us-east-1/s3/aws4_request" in headers["authorization"]
    assert headers["x-amz-security-token"] is None
    assert proxy.asked == []


LIST = """
import sys, pyarrow.fs
from awares_platform.config.store import StoreConfig
from awares_platform.training.filesystem import filesystem
files = filesystem(StoreConfig.model_validate_json(sys.argv[1]))
print(files.get_file_info(pyarrow.fs.FileSelector("awares/x", allow_not_found=True)))
"""


def test_no_variable_reaches_the_checkpoints_of_a_private_server(
    private: StoreConfig,
    server: http.server.HTTPServer,
    proxy: http.server.HTTPServer,
    tmp_path: Path,
) -> None:
    """Check that Ray Train's file system also ignores the variables for AWS and for proxies.

    pyarrow reads the environment when it is imported, so the test starts a new process.
    """
    environment = {**os.environ, **hostile.everything(proxy.server_port, tmp_path)}
    command = [sys.executable, "-c", LIST, private.model_dump_json()]
    listed = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=120, cwd=ROOT
    )
    assert (listed.returncode, listed.stdout) == (0, "[]\n"), listed.stderr
    assert server.seen and proxy.asked == []
    for path, headers in server.seen:
        assert path.startswith("/awares")
        assert "Credential=its-own-key/" in headers["authorization"]
        assert headers["x-amz-security-token"] is None


def test_a_server_of_the_users_gets_the_users_credentials_and_no_key_of_a_private_one(
    private: StoreConfig,
    server: http.server.HTTPServer,
    proxy: http.server.HTTPServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "the-users-key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "the-users-secret")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "the-users-token")
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.server_port}")
    theirs = private.model_copy(update={"endpoint": f"http://localhost:{server.server_port}"})
    ObjectStore(theirs).check()
    [(_, headers)] = server.seen
    assert "Credential=the-users-key/" in headers["authorization"]
    assert headers["x-amz-security-token"] == "the-users-token"
    assert proxy.asked == []


def test_a_remote_server_is_reached_through_the_users_proxy(
    private: StoreConfig, proxy: http.server.HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "the-users-key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "the-users-secret")
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.server_port}")
    remote = private.model_copy(update={"endpoint": "http://s3.example.invalid"})
    with pytest.raises(StoreError):
        ObjectStore(remote).check()
    assert proxy.asked and proxy.asked[0].startswith("GET http://s3.example.invalid/awares?")


def test_the_keys_are_private_and_end_with_their_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = StoreKeys("http://127.0.0.1:1", "key", "secret")
    assert "secret'" not in repr(keys)
    [(name, value)] = variable(tmp_path).items()
    monkeypatch.setenv(name, value)
    for _ in range(2):  # The second write replaces the first.
        keys.write(Path(value))
        assert Path(value).stat().st_mode & 0o777 == 0o600
        assert StoreKeys.of("http://127.0.0.1:1") == keys
    assert StoreKeys.of("http://127.0.0.1:2") is None
    assert StoreKeys.of(None) is None
    Path(value).unlink()
    assert StoreKeys.of("http://127.0.0.1:1") is None
