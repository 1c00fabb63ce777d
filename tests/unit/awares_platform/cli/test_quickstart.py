"""Tests the quickstart's saved state, configuration fingerprint and results."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from awares.mini import POLICY
from awares_platform.cli.ask import Reply
from awares_platform.cli.pace import Pace
from awares_platform.cli.quickstart import JOBS, closing, fingerprint, write_results
from awares_platform.cli.quickstart_state import QuickstartState, read_state
from awares_platform.config import PlatformConfig
from awares_platform.config.store import StoreConfig

FIGURES = {
    "accuracy": 0.9,
    "accuracy_ci95": [0.8, 1.0],
    "rtr_token": 0.4,
    "rtr_pixel": 0.4,
    "call_rate": 0.3,
    "reward": 9.1,
    "latency_p50_s": 0.02,
    "n": 2048,
}


def _config(**sections: dict) -> PlatformConfig:
    return PlatformConfig.model_validate(sections)


def test_the_fingerprint_changes_with_settings_that_change_results():
    assert fingerprint(_config()) == fingerprint(
        _config(
            run={"directory": "elsewhere"},
            store={"endpoint": "http://127.0.0.1:1", "addressing": "path", "encryption": "AES256"},
            serve={"port": 1},
        )
    )
    assert (
        len(
            {
                fingerprint(_config(**sections))
                for sections in ({}, {"run": {"seed": 1}}, {"sft": {"learning_rate": 2e-3}})
            }
        )
        == 3
    )


def test_the_fingerprint_of_earlier_runs_stays_valid() -> None:
    """Check that the URL and the region are the only store settings that change the fingerprint.

    The quickstart deletes an earlier run if its fingerprint differs.
    """
    counted = {
        name
        for name, other in {
            "url": "s3://another/place",
            "region": "eu-west-3",
            "endpoint": "http://127.0.0.1:1",
            "addressing": "path",
            "encryption": "AES256",
            "retry_budget_s": 7,
        }.items()
        if fingerprint(_config(store={name: other})) != fingerprint(_config())
    }
    assert counted == {"url", "region"}
    assert {*StoreConfig.model_fields} == {
        *("url", "region", "endpoint", "addressing", "encryption", "kms_key", "retry_budget_s")
    }


def test_fingerprint_changes_with_the_content_of_the_base(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWARES_CACHE", str(tmp_path / "cache"))
    base = Path(shutil.copytree(POLICY, tmp_path / "base"))
    before = fingerprint(_config(policy={"base": str(base)}))
    with (base / "model.safetensors").open("ab") as weights:
        weights.write(b"0")
    assert fingerprint(_config(policy={"base": str(base)})) != before


def test_state_counts_interrupted_attempts_but_not_as_finished(tmp_path):
    state = QuickstartState(tmp_path / "run" / "progress.json", "ab")
    with pytest.raises(KeyboardInterrupt), state.timed("sft"):
        raise KeyboardInterrupt
    interrupted = json.loads(state.path.read_text())
    with state.timed("sft"):
        pass
    finished = json.loads(state.path.read_text())

    assert interrupted["finished"] == [] and list(interrupted["wall_s"]) == ["sft"]
    assert finished == {
        "fingerprint": "ab",
        "finished": ["sft"],
        "wall_s": {"sft": finished["wall_s"]["sft"]},
        "cpu_s": {"sft": finished["cpu_s"]["sft"]},
    }
    assert read_state(state.path) == state
    assert finished["wall_s"]["sft"] >= interrupted["wall_s"]["sft"]


def test_results_hold_the_reported_metrics(tmp_path: Path):
    (tmp_path / "evaluate").mkdir()
    policies = {
        name: {**FIGURES, "errors": 0, "crops": {"direct": 9}}
        for name in ("full", "low", "escalate", "sft", "awares")
    }
    (tmp_path / "evaluate" / "results.json").write_text(
        json.dumps({"policies": policies, "questions": 2048})
    )
    state = QuickstartState(tmp_path / "progress.json", "ab")
    state.wall_s = dict.fromkeys((*JOBS, "older"), 1.5)
    state.cpu_s = {"sft": {"learner": 2.5}}
    write_results(tmp_path, state, seed=7)

    results = json.loads((tmp_path / "results.json").read_text())
    assert results["policies"] == dict.fromkeys(policies, FIGURES)
    assert results["wall_s"] == dict.fromkeys(JOBS, 1.5)
    assert results["cpu_s"] == {job: state.cpu_s.get(job, {}) for job in JOBS}
    assert (
        results["seed"] == 7
        and "torch" in results["versions"]
        and set(results) == {"policies", "wall_s", "cpu_s", "versions", "seed"}
    )


def test_the_last_words_say_how_to_open_the_page(tmp_path: Path) -> None:
    page = tmp_path / "quickstart" / "report.html"
    (page.parent / "evaluate").mkdir(parents=True)
    (page.parent / "evaluate" / "table.md").write_text("| policy |\n|---|\n| full |\n")
    asked = SimpleNamespace(question="which digit?", truth="7")
    answered = Reply(
        answer="7", crops=(), boxes=(), visual_tokens=4, rtr_token=0.25, prompt_tokens=31,
        completion_tokens=2, turns=1, stop="answer", latency_s=0.1, weight_version=0,
    )  # fmt: skip
    pace = Pace({}, [])
    said = closing(asked, answered, {"wall_s": {}}, page, "http://127.0.0.1:8000", pace)
    assert " serve run.name=quickstart\nthen open http://127.0.0.1:8000/ in a browser" in said
