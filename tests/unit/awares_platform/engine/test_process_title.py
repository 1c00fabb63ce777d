"""Tests that an engine process gets its title even if its first environment variable changed."""

import os
import subprocess
import sys

import pytest

from awares.families.qwen2_5_vl import QWEN2_5_VL
from awares_platform.engine import process_title
from awares_platform.engine.launch import preloaded

TITLE = "VLLM::EngineCore"
SHOW = f"""
import os, setproctitle
os.environ["FIRST"] = "a changed value"
setproctitle.setproctitle("{TITLE}")
with open("/proc/self/cmdline") as line:
    print(line.read().split(chr(0))[0])
"""


@pytest.mark.parametrize(("prepared", "titled"), [(False, False), (True, True)])
def test_a_process_whose_first_variable_has_changed_gets_its_title(
    prepared: bool, titled: bool
) -> None:
    code = f"import {process_title.__name__}\n{SHOW}" if prepared else SHOW
    path = os.pathsep.join(path or os.getcwd() for path in sys.path)
    shown = subprocess.run(
        [sys.executable, "-c", code],
        env={"FIRST": "a value", "PYTHONPATH": path},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert (shown.stdout.strip() == TITLE) == titled


def test_the_server_prepares_titles_before_it_imports_vllm() -> None:
    assert preloaded(QWEN2_5_VL)[0] == process_title.__name__
