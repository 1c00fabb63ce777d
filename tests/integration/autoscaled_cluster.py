"""Runs a Ray cluster on this machine. Ray's own autoscaler adds and removes its nodes.

    ray start --head --autoscaling-config --> autoscaler (v2, as in KubeRay)
                                                 | reads: which actors wait for which nodes
                                                 +-- starts and stops raylets on this machine

Ray's FakeMultiNodeProvider stands for the cloud. Each raylet that it starts is a real one.
"""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID

from tests.faults.cluster import LABEL, RayCluster
from tests.processes import family, kill

HEAD = "ray.head.default"
# Ray's wheel lacks a file that the provider's short name, fake_multinode, needs.
PROVIDER = "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider"
# The autoscaler demands these settings, although the provider needs no command and no file.
_EMPTY = (
    "cluster_synced_files",
    "setup_commands",
    "head_setup_commands",
    "worker_setup_commands",
    "initialization_commands",
    "head_start_ray_commands",
    "worker_start_ray_commands",
)
_VARIABLES = {
    "AUTOSCALER_UPDATE_INTERVAL_S": "1",
    "RAY_FAKE_CLUSTER": "1",
    "RAY_enable_autoscaler_v2": "1",
    "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID,
    "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID,
}


class AutoscaledCluster(RayCluster):
    """A head node without CPUs for jobs, and up to `most` nodes with one CPU and a label.

    A node that is idle for `idle_s` seconds is removed.
    """

    def __init__(
        self, environment: Mapping[str, str], directory: Path, group: str, most: int, idle_s: float
    ) -> None:
        super().__init__({**environment, **_VARIABLES}, directory)
        self._group, self._most, self._idle_s = group, most, idle_s

    def start(self) -> None:
        """Start the head node with the autoscaler. The cluster has no other node yet."""
        self._directory.mkdir(parents=True)
        config = self._directory / "autoscaling.json"
        config.write_text(json.dumps(self._config()))
        self._start_head(f"--autoscaling-config={config}")

    def _config(self) -> dict[str, Any]:
        worker = {
            "resources": {"CPU": 1, "object_store_memory": 100 * 2**20},
            "labels": {LABEL: self._group},
            "node_config": {},
            "min_workers": 0,
            "max_workers": self._most,
        }
        return {
            "cluster_name": "elastic",
            "max_workers": self._most,
            "provider": {
                "type": "external",
                "module": PROVIDER,
                "gcs_address": self.address,
                "head_node_id": FAKE_HEAD_NODE_ID,
                "launch_multiple": True,
                "use_node_id_as_ip": True,
                "disable_node_updaters": True,
                "disable_launch_config_check": True,
            },
            "available_node_types": {
                HEAD: {"resources": {"CPU": 8}, "node_config": {}, "max_workers": 0},
                self._group: worker,
            },
            "head_node_type": HEAD,
            **dict.fromkeys(_EMPTY, []),
            "upscaling_speed": 1.0,
            "idle_timeout_minutes": self._idle_s / 60,
        }

    def labelled(self) -> set[str]:
        """Return the ids of all living nodes that have the label."""
        return {
            node["NodeID"]
            for node in ray.nodes()
            if node["Alive"] and node["Labels"].get(LABEL) == self._group
        }

    def stop(self) -> None:
        """Kill every process of the cluster. The head's process is an ancestor of all of them."""
        kill({one for node in self._nodes if node.is_running() for one in family(node)})


@contextmanager
def autoscaled(
    environment: Mapping[str, str], group: str, most: int, idle_s: float
) -> Iterator[AutoscaledCluster]:
    """Run a cluster during the block, and connect this process to it."""
    directory = Path(f"/tmp/ray-elastic-{os.getpid()}")
    nodes = AutoscaledCluster(environment, directory, group, most, idle_s)
    try:
        nodes.start()
        ray.init(address=nodes.address, log_to_driver=False)
        yield nodes
    finally:
        ray.shutdown()
        nodes.stop()
        shutil.rmtree(directory, ignore_errors=True)
