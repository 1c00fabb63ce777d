"""Runs `awares serve` as a process, and sends it questions over HTTP."""

import base64
import http.client
import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.processes import descendants

ROOT = Path(__file__).parents[2]
TOKEN = "integration-secret"


@dataclass(frozen=True, slots=True)
class Served:
    """A running `awares serve` process, and a question that a client can ask it."""

    process: subprocess.Popen[str]
    family: set[psutil.Process]
    """The process and its descendants."""
    url: str
    image: Path
    """The image that the question is about."""
    question: str
    printed: list[str]
    """The lines that the process printed until it was ready."""


def serve_command(directory: Path, port: int, *overrides: str) -> subprocess.Popen[str]:
    """Start `awares serve` with the bundled policy, as the leader of a process group."""
    settings = [
        f"run.directory={directory / 'runs'}",
        "serve.policy=base",
        f"serve.port={port}",
        "engine.kv_cache_gib=0.25",
        *overrides,
    ]
    code = "from awares_platform.cli.main import main; main()"
    environment = {**os.environ, "TEST_TOKEN": TOKEN, "PYTHONPATH": f"{ROOT}:{ROOT / 'platform'}"}
    environment.pop("RAY_ADDRESS", None)
    setup = str(ROOT / "jobs/configs/mini.toml")
    return subprocess.Popen(
        [sys.executable, "-c", code, "serve", "--config", setup, *settings],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        cwd=directory,
        process_group=0,
    )


def post(served: Served, body: Any, token: str | None = TOKEN) -> tuple[int, dict[str, str], str]:
    """Send a chat request. Return the status, headers and body of the response."""
    headers = {
        "content-type": "application/json",
        **({"authorization": f"Bearer {token}"} if token else {}),
    }
    request = urllib.request.Request(
        f"{served.url}/v1/chat/completions", json.dumps(body).encode(), headers
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, dict(response.headers), response.read().decode()
    except urllib.error.HTTPError as error:
        return (
            error.code,
            {key.lower(): value for key, value in error.headers.items()},
            error.read().decode(),
        )


def chat_body(served: Served, image: bytes | None = None, **fields: Any) -> dict[str, Any]:
    """Return the body of a request about `image`, or about the image of `served` by default."""
    data = base64.b64encode(image or served.image.read_bytes()).decode()
    content = [
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}},
        {"type": "text", "text": served.question},
    ]
    messages = [{"role": "user", "content": content}]
    return {"model": "awares", "messages": messages, "max_tokens": 16, **fields}


def exported(served: Served) -> dict[tuple[str, str], float]:
    """Return the endpoint's metrics from the metrics page of its Ray node.

    A key has a metric's name without `ray_awares_serve_`, and the HTTP status or "". A value is the
    sum over all other labels.
    """
    agents = descendants(
        lambda command: command.startswith("ray::DashboardAgent"), served.process.pid
    )
    ports = [
        at.laddr.port
        for one in agents
        for at in one.net_connections("tcp")
        if at.status == psutil.CONN_LISTEN
    ]
    found: dict[tuple[str, str], float] = {}
    for port in ports:
        with (
            suppress(OSError, http.client.HTTPException),
            urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=2) as reply,
        ):
            for name, labels, value in re.findall(
                r"^ray_awares_serve_(\w+){(.*)} (\S+)$", reply.read().decode(), re.MULTILINE
            ):
                status = re.search(r'status="(\d+)"', labels)
                key = (name, status[1] if status else "")
                found[key] = found.get(key, 0.0) + float(value)
    return found
