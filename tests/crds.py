"""Finds the custom resource definitions of other projects, for the tests of the chart."""

import os
from pathlib import Path

import pytest

SOURCES = {
    "ray-project/kuberay v1.7": "helm-chart/kuberay-operator/crds",
    "kubernetes-sigs/kueue": "config/components/crd/bases",
    "kubernetes-sigs/gateway-api": "config/crd/standard",
    "prometheus-operator/prometheus-operator": "example/prometheus-operator-crd",
    "kedacore/keda": "config/crd/bases",
}
"""Maps GitHub repositories to the directories of their custom resource definitions.

KubeRay's key also holds the release.
"""


def crd_directory() -> Path:
    """Return the path in the environment variable AWARES_CRDS.

    Skip the test if this path is not a directory with custom resource definitions of KubeRay.
    """
    path = Path(os.environ.get("AWARES_CRDS", "") or "/nonexistent")
    if not any(path.glob("ray.io_*.yaml")):
        places = ", ".join(f"{repository} ({folder})" for repository, folder in SOURCES.items())
        pytest.skip(
            "AWARES_CRDS names no directory with custom resource definitions; "
            f"put the YAML files of these directories on GitHub into one: {places}"
        )
    return path
