"""Runs the linter checkov on Kubernetes documents.

ACCEPTED lists the checks that the chart may fail, and says why the project accepts each failure.
"""

import json
import os
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.unit.helm.render import ROOT, Doc

ACCEPTED = {
    "CKV_K8S_8": (
        "KubeRay adds liveness probes to Ray's containers; submitters and tests end by themselves"
    ),
    "CKV_K8S_9": (
        "KubeRay adds readiness probes to Ray's containers; submitters and tests serve nobody"
    ),
    "CKV_K8S_15": (
        "tags are versions that never move, and IfNotPresent lets nodes start without the "
        "registry; image.digest pins the bytes"
    ),
    "CKV_K8S_35": "boto3 and Ray read their credentials from the environment",
    "CKV_K8S_38": "heads with the autoscaler ask the Kubernetes API; all other pods mount no token",
    "CKV_K8S_40": (
        "user 1000 owns the image's files and home, and pods share no directory of the host"
    ),
    "CKV_K8S_43": (
        "image.digest pins the image if the registry has digests; the default is the version's tag"
    ),
}


def checkov(docs: Iterable[Doc], directory: Path) -> dict[str, list[str]]:
    """Run checkov on the documents, and return the failing resources of each failed check.

    A check is an identifier such as CKV_K8S_8. Without checkov, the test is skipped.
    """
    program = ROOT / ".tools" / "checkov" / "bin" / "checkov"
    if not program.with_name("checkov").exists() or not (program.parents[1] / "installed").exists():
        pytest.skip(".tools/checkov is missing: run `make tools`")
    source = directory / "pods.yaml"
    source.write_text("\n---\n".join(json.dumps(doc) for doc in docs))
    command = [
        str(program),
        "-f",
        str(source),
        "--framework",
        "kubernetes",
        "--skip-download",
        "--compact",
        "--quiet",
        "-o",
        "json",
    ]
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {
        "HOME": str(directory)
    }
    done = subprocess.run(command, env=clean, capture_output=True, text=True, timeout=120)
    report = json.loads(done.stdout)
    assert report["summary"]["parsing_errors"] == 0, done.stderr
    assert report["summary"]["passed"] > 0, done.stderr
    found: dict[str, list[str]] = {}
    for finding in report["results"]["failed_checks"]:
        found.setdefault(finding["check_id"], []).append(
            f"{finding['check_name']}: {finding['resource']}"
        )
    return found
