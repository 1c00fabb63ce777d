"""Tests that the rendered documents are valid.

Kubernetes' strict schemas, the CRDs, the operator's rules and Ray Serve must accept them.
"""

import pytest

from tests.unit.helm import crd, operator_rules, schemas
from tests.unit.helm.cases import CASES, Case
from tests.unit.helm.pods import expand
from tests.unit.helm.render import of_kind

WITHOUT_DEFINITION = {"ExternalSecret"}


@pytest.mark.parametrize("version", schemas.VERSIONS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_kubernetes_accepts_the_documents(case: Case, version: str) -> None:
    own = [doc for doc in case.docs() if not crd.is_custom(doc)]
    assert [fault for doc in own for fault in schemas.faults(doc, version)] == []


@pytest.mark.parametrize("version", schemas.VERSIONS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_kubernetes_accepts_the_pods_inside(case: Case, version: str) -> None:
    assert [fault for pod in expand(case.docs()) for fault in schemas.faults(pod, version)] == []


@pytest.mark.parametrize("case", CASES, ids=str)
def test_custom_resources_fit_their_definitions(case: Case) -> None:
    custom = [
        doc for doc in case.docs() if crd.is_custom(doc) and doc["kind"] not in WITHOUT_DEFINITION
    ]
    assert custom
    assert [fault for doc in custom for fault in crd.faults(doc)] == []


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_operator_accepts_the_custom_resources(case: Case) -> None:
    gates = operator_rules.DEFAULT_GATES | ({"RayCronJob"} if case.name == "cron" else set())
    assert [fault for doc in case.docs() for fault in operator_rules.faults(doc, gates)] == []


def test_the_cases_cover_every_kind_of_resource() -> None:
    kinds = {doc["kind"] for case in CASES for doc in case.docs()}
    assert {
        "RayCluster",
        "RayJob",
        "RayCronJob",
        "RayService",
        "NetworkPolicy",
        "PodDisruptionBudget",
        "PodMonitor",
        "Pod",
    } <= kinds
    assert {
        "PrometheusRule",
        "ConfigMap",
        "Service",
        "Ingress",
        "HTTPRoute",
        "ServiceAccount",
        "ExternalSecret",
        "StatefulSet",
    } <= kinds


@pytest.mark.parametrize("case", CASES, ids=str)
def test_serve_accepts_the_configuration(case: Case) -> None:
    from tests.unit.helm import serve_config

    texts = [doc["spec"]["serveConfigV2"] for doc in of_kind(case.docs(), "RayService")]
    assert [fault for text in texts for fault in serve_config.faults(text)] == []
