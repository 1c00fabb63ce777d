"""Starts Ray, reports metrics, and prints the lines of Ray's metrics page about them.

Usage: `python exporting_driver.py <directory for metrics.jsonl> <port of the metrics page>`
"""

import sys
import time
import urllib.request
from pathlib import Path

import ray

from awares_platform.runtime.metrics import MetricsWriter
from awares_platform.runtime.prometheus import Gauges
from awares_platform.serve.metrics import EndpointMetrics

PATIENCE_S = 60.0
WANTED = (
    "ray_awares_reward_mean{",
    "ray_awares_serve_requests_total{",
    "ray_awares_serve_latency_seconds_count{",
)


def page(port: int) -> list[str]:
    """Return the metrics page's lines about this project, or [] if the page cannot be read."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as reply:
            return [
                line
                for line in reply.read().decode().splitlines()
                if line.startswith("ray_awares_")
            ]
    except OSError:
        return []


def main(directory: str, port: int) -> None:
    """Report metrics once, and print the lines about this project from Ray's metrics page.

    Before it prints, the function waits at most PATIENCE_S seconds for all metrics of WANTED.
    """
    ray.init(
        address="local",
        num_cpus=1,
        include_dashboard=False,
        object_store_memory=10**8,
        log_to_driver=False,
        _metrics_export_port=port,
        _system_config={"metrics_report_interval_ms": 200},
    )
    MetricsWriter(Path(directory), Gauges("grpo", "seven")).report(3, {"reward/mean": 8.25})
    EndpointMetrics().refused(401, "unauthorized", 0.25)
    deadline = time.monotonic() + PATIENCE_S
    lines = page(port)
    while (
        not all(any(line.startswith(wanted) for line in lines) for wanted in WANTED)
        and time.monotonic() < deadline
    ):
        time.sleep(0.2)
        lines = page(port)
    print("\n".join(lines))
    ray.shutdown()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
