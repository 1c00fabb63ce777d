"""Tests that every pod of every preset fits a node pool that manifests/ declares."""

import pytest

from tests.unit.helm.cases import PRESET_VALUES, PRESETS
from tests.unit.helm.render import PRESETS as FOLDER
from tests.unit.helm.render import render
from tests.unit.manifests import placement

ALL = {"endpoint": {"enabled": True, "token": {"existingSecret": "endpoint"}}}


@pytest.mark.parametrize("target", placement.TARGETS)
@pytest.mark.parametrize("preset", PRESETS)
def test_every_pod_of_a_preset_finds_a_node(preset: str, target: str) -> None:
    docs = render(PRESET_VALUES | ALL | {"target": target}, preset)
    assert list(placement.faults(docs, target)) == []


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_name_no_product(preset: str) -> None:
    """Check that no preset selects nodes by a label such as `nvidia.com/gpu.product`.

    A node gets this label only after its start, so an autoscaler adds no node for such a pod.
    """
    assert "nodeSelector" not in (FOLDER / f"{preset}.yaml").read_text()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"nodeSelector": {"nvidia.com/gpu.product": "NVIDIA-L40S"}},
            "awares-endpoint declares no nvidia.com/gpu.product=NVIDIA-L40S",
        ),
        ({"resources": {"requests": {"ephemeral-storage": "900Gi"}}}, "has no node with"),
        ({"gpus": 16}, "has no node with"),
        ({"maxReplicas": 9}, "RayService/awares-awares-train-endpoint needs 9.0 GPUs of"),
    ],
)
def test_the_checker_reports_a_pod_without_a_node(
    changes: dict[str, object], sentence: str
) -> None:
    values = PRESET_VALUES | {
        "target": "eks",
        "endpoint": {"token": {"existingSecret": "e"}, "groups": {"replica": changes}},
    }
    assert sentence in "\n".join(placement.faults(render(values, "serve-only"), "eks"))


def test_a_taint_needs_its_toleration() -> None:
    taint = {"key": "nvidia.com/gpu", "value": "true", "effect": "NoSchedule"}
    pool = placement.Pool("p", {}, (taint,), ({"cpu": 1.0},), 0.0)
    pod = {"spec": {"containers": [{"resources": {"requests": {"cpu": "1"}}}]}}
    assert pool.refusal(pod) == "p has the taint nvidia.com/gpu"
    for toleration in (
        {"operator": "Exists"},
        {"key": "nvidia.com/gpu", "value": "true", "effect": "NoSchedule"},
    ):
        tolerant = {"spec": pod["spec"] | {"tolerations": [toleration]}}
        assert pool.refusal(tolerant) is None
    other = {"spec": pod["spec"] | {"tolerations": [taint | {"value": "false"}]}}
    assert pool.refusal(other) == "p has the taint nvidia.com/gpu"
