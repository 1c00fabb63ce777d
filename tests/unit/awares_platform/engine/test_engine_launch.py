"""Tests the checks before the start of an engine, and the error message of a failed start."""

import importlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from awares import mini
from awares.chat import ChatFormat
from awares.errors import PolicyError
from awares.families.qwen2_5_vl import QWEN2_5_VL, Qwen25VL
from awares.families.qwen3_vl import Qwen3VL
from awares_platform.config.engine import EngineConfig
from awares_platform.engine.launch import (
    EngineError,
    check_memory,
    check_policy,
    explain,
    find_cause,
    importing_as_here,
    preloaded,
    set_environment,
    write_logging,
)

_DUAL_STREAM = "VLLM_LORA_ENABLE_DUAL_STREAM"
_SET = (
    "OMP_NUM_THREADS",
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY",
    "TORCHDYNAMO_DISABLE",
    "VLLM_ENGINE_READY_TIMEOUT_S",
)


@pytest.fixture
def chat() -> ChatFormat:
    return ChatFormat(AutoTokenizer.from_pretrained(Path(mini.POLICY)))


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    """Return the directory of a copy of the shipped policy. A test may change the copy."""
    return Path(shutil.copytree(mini.POLICY, tmp_path / "policy"))


def change(policy: Path, **settings: Any) -> None:
    config = json.loads((policy / "config.json").read_text())
    (policy / "config.json").write_text(json.dumps(config | settings))


def test_a_fitting_policy_passes(policy: Path, chat: ChatFormat) -> None:
    check_policy(policy, QWEN2_5_VL, chat)


def test_a_policy_of_another_family_is_refused(policy: Path, chat: ChatFormat) -> None:
    change(policy, model_type="llama")
    with pytest.raises(PolicyError, match=r"'llama'.*'qwen2_5_vl' \(Qwen2\.5-VL\).*policy\.base"):
        check_policy(policy, QWEN2_5_VL, chat)


def test_a_tokenizer_of_another_policy_is_refused(policy: Path, chat: ChatFormat) -> None:
    chat.image_token_id += 1
    with pytest.raises(PolicyError, match=r"image token is \d+.*different policies"):
        check_policy(policy, QWEN2_5_VL, chat)


def test_a_directory_without_a_configuration_is_no_policy(tmp_path: Path, chat: ChatFormat) -> None:
    with pytest.raises(PolicyError, match=r"config\.json is missing.*policy\.base"):
        check_policy(tmp_path, QWEN2_5_VL, chat)


@pytest.mark.slow
@pytest.mark.parametrize("family", [Qwen25VL(), Qwen3VL()], ids=lambda family: family.name)
def test_every_preloaded_module_imports(family: Qwen25VL) -> None:
    """Python's forkserver imports the preloaded modules before it forks an engine process.

    The forkserver reports no error if an import fails.
    """
    for name in preloaded(family):
        importlib.import_module(name)
    model = importlib.import_module(family.vllm_module)
    assert hasattr(model, family.architecture)


def test_a_cache_larger_than_the_machine_is_refused() -> None:
    check_memory(EngineConfig(kv_cache_gib=0.01))
    check_memory(EngineConfig(kv_cache_gib=None))
    with pytest.raises(
        EngineError, match=r"no memory for the KV cache: engine\.kv_cache_gib is 1e\+06"
    ):
        check_memory(EngineConfig(kv_cache_gib=1e6))


def test_a_process_started_from_here_imports_from_here(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    monkeypatch.setattr(sys, "path", [str(tmp_path), "", *sys.path])
    show = [sys.executable, "-c", "import sys; print(*sys.path, sep='\\n')"]
    with importing_as_here():
        listed = subprocess.run(show, capture_output=True, text=True, check=True)
    assert listed.stdout.splitlines()[1:3] == [str(tmp_path), os.getcwd()]
    assert os.environ["PYTHONPATH"] == "/elsewhere"


def test_adapters_are_never_added_on_a_second_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """Check that `set_environment` removes the environment variable for a second CUDA stream.

    On a second stream, vLLM would add adapters without `rounding.add_once`, and lose small updates.
    """
    for name in _SET:
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv(_DUAL_STREAM, "1")
    set_environment(EngineConfig())
    assert _DUAL_STREAM not in os.environ


def test_block_sizes_that_vllm_refuses_are_refused_first() -> None:
    with pytest.raises(
        ValueError, match="engine.block_size must be a positive multiple of 32, got 16"
    ):
        EngineConfig(block_size=16)


def test_the_log_takes_everything_and_the_terminal_errors_only(tmp_path: Path) -> None:
    settings, log = write_logging(tmp_path)
    handlers = json.loads(settings.read_text())["handlers"]
    assert handlers["log"]["filename"] == str(log)
    assert handlers["stderr"]["level"] == "ERROR"


LOG = """11:06:32 ERROR EngineCore vllm.v1.engine.core: EngineCore failed to start.
Traceback (most recent call last):
  File "core.py", line 1482, in run_engine_core
{cause}
11:06:33 ERROR MainProcess vllm: AsyncLLM output_handler failed.
vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue. \
See stack trace (above) for the root cause.
"""


def test_the_cause_is_found_and_not_its_consequence(tmp_path: Path) -> None:
    log = tmp_path / "engine.log"
    assert find_cause(log) == ""
    log.write_text(LOG.format(cause="torch.OutOfMemoryError: 2 GiB"))
    assert find_cause(log) == "torch.OutOfMemoryError: 2 GiB"


def test_a_failed_start_names_the_settings_where_memory_is_short(tmp_path: Path) -> None:
    log = tmp_path / "engine.log"
    log.write_text(
        LOG.format(cause="ValueError: To serve at least one request, 0.02 GiB KV cache is needed")
    )
    error = explain(RuntimeError("Engine core initialization failed."), log, EngineConfig())
    assert (
        "engine.kv_cache_gib is 1, engine.gpu_memory_utilization 0.9, engine.max_model_len 1024"
        in str(error)
    )
    assert "0.02 GiB KV cache is needed" in str(error)
    log.write_text(LOG.format(cause="AssertionError: shapes differ"))
    assert "did not start: AssertionError: shapes differ" in str(
        explain(RuntimeError("..."), log, EngineConfig())
    )
    log.unlink()
    assert "did not start: RuntimeError: no port" in str(
        explain(RuntimeError("no port"), log, EngineConfig())
    )
