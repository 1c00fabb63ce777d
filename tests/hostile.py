"""Builds environment variables that keep clients from reaching the test servers on this machine.

The variables configure HTTP proxies and AWS clients, as on a company's laptop.
"""

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CONFIG = """
[default]
region = eu-west-3
endpoint_url = http://127.0.0.1:9
aws_access_key_id = of-the-file
aws_secret_access_key = of-the-file
aws_session_token = of-the-file
use_fips_endpoint = true
use_dualstack_endpoint = true
max_attempts = 0
s3 =
    addressing_style = virtual
    use_accelerate_endpoint = true
    payload_signing_enabled = true
"""


class RefusingProxy(http.server.ThreadingHTTPServer):
    """A proxy that answers every request with 403.

    `asked` lists the method and the target of each request.
    """

    asked: list[str]


class _Refuses(http.server.BaseHTTPRequestHandler):
    server: RefusingProxy

    def _refuse(self) -> None:
        self.server.asked.append(f"{self.command} {self.path}")
        self.send_response(403)
        self.send_header("content-length", "0")
        self.end_headers()

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = do_CONNECT = _refuse

    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def proxy() -> Iterator[RefusingProxy]:
    """Run a proxy that answers every request with 403."""
    server = RefusingProxy(("127.0.0.1", 0), _Refuses)
    server.asked = []
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def proxies(port: int) -> dict[str, str]:
    """Return environment variables that send all requests to a proxy at `port` on this machine.

    The empty no_proxy sends even requests to this machine to the proxy.
    """
    url = f"http://127.0.0.1:{port}"
    names = ("http_proxy", "https_proxy", "all_proxy", "grpc_proxy", "ftp_proxy")
    both = {spelling: url for name in names for spelling in (name, name.upper())}
    return {**both, "no_proxy": "", "NO_PROXY": ""}


def aws(directory: Path) -> dict[str, dict[str, str]]:
    """Return environment variables, in groups, that could break a test's AWS client.

    Also write an AWS config file to `directory`. Two variables of the group "files" name this file.
    """
    config = directory / "aws-config"
    config.write_text(CONFIG, "utf-8")
    elsewhere = "http://127.0.0.1:9"
    return {
        "credentials": {
            "AWS_ACCESS_KEY_ID": "of-another-server",
            "AWS_SECRET_ACCESS_KEY": "of-another-server",
        },
        "token": {"AWS_SESSION_TOKEN": "left-over", "AWS_SECURITY_TOKEN": "left-over"},
        "profile": {"AWS_PROFILE": "no-such-profile", "AWS_DEFAULT_PROFILE": "no-such-profile"},
        "files": {
            "AWS_CONFIG_FILE": str(config),
            "AWS_SHARED_CREDENTIALS_FILE": str(config),
            "AWS_SDK_LOAD_CONFIG": "1",
            "AWS_DATA_PATH": str(directory),
        },
        "endpoint": {
            "AWS_ENDPOINT_URL": elsewhere,
            "AWS_ENDPOINT_URL_S3": elsewhere,
            "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "false",
        },
        "certificates": {
            "AWS_CA_BUNDLE": str(directory / "no-such-bundle.pem"),
            "REQUESTS_CA_BUNDLE": str(directory / "no-such-bundle.pem"),
        },
        "region": {"AWS_DEFAULT_REGION": "eu-west-3", "AWS_REGION": "eu-west-3"},
        "FIPS": {"AWS_USE_FIPS_ENDPOINT": "true"},
        "dual stack": {"AWS_USE_DUALSTACK_ENDPOINT": "true"},
        "S3": {
            "AWS_S3_US_EAST_1_REGIONAL_ENDPOINT": "nonsense",
            "AWS_S3_USE_ARN_REGION": "true",
            "AWS_S3_DISABLE_MULTIREGION_ACCESS_POINTS": "true",
            "AWS_S3_DISABLE_EXPRESS_SESSION_AUTH": "false",
        },
        "checksums": {
            "AWS_REQUEST_CHECKSUM_CALCULATION": "when_supported",
            "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_supported",
            "AWS_REQUEST_MIN_COMPRESSION_SIZE_BYTES": "1",
        },
        "signature": {
            "AWS_AUTH_SCHEME_PREFERENCE": "sigv4a",
            "AWS_SIGV4A_SIGNING_REGION_SET": "eu-west-3",
        },
        "container": {
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{elsewhere}/credentials",
            "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/credentials",
            "AWS_CONTAINER_AUTHORIZATION_TOKEN": "left-over",
        },
        "instance": {
            "AWS_EC2_METADATA_DISABLED": "false",
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": elsewhere,
            "AWS_METADATA_SERVICE_TIMEOUT": "nonsense",
            "AWS_METADATA_SERVICE_NUM_ATTEMPTS": "nonsense",
        },
        "role": {
            "AWS_ROLE_ARN": "arn:aws:iam::1:role/other",
            "AWS_ROLE_SESSION_NAME": "other",
            "AWS_WEB_IDENTITY_TOKEN_FILE": str(directory / "no-such-token"),
            "AWS_STS_REGIONAL_ENDPOINTS": "nonsense",
        },
        "attempts": {"AWS_MAX_ATTEMPTS": "0"},
        "retries": {"AWS_RETRY_MODE": "nonsense"},
        "defaults": {"AWS_DEFAULTS_MODE": "nonsense"},
        "discovery": {
            "AWS_ACCOUNT_ID_ENDPOINT_MODE": "nonsense",
            "AWS_ENDPOINT_DISCOVERY_ENABLED": "nonsense",
        },
        "monitoring": {"AWS_CSM_ENABLED": "true", "AWS_CSM_PORT": "nonsense"},
    }


def everything(port: int, directory: Path) -> dict[str, str]:
    """Return the environment variables of `proxies` and of all groups of `aws` in one dict."""
    merged = proxies(port)
    for group in aws(directory).values():
        merged |= group
    return merged
