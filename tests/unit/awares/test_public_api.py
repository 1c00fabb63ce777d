import importlib
import inspect
import subprocess
import sys
from enum import Enum
from pathlib import Path

import pytest

import awares

ROOT = Path(inspect.getfile(awares)).parent
MODULES = sorted(
    ".".join(("awares", *path.relative_to(ROOT).with_suffix("").parts))
    for pattern in ("*.py", "evaluation/*.py", "losses/*.py")
    for path in ROOT.glob(pattern)
    if path.name != "__init__.py"
)


def test_every_exported_name_loads():
    for name in awares.__all__:
        assert getattr(awares, name) is not None
    assert len(set(awares.__all__)) == len(awares.__all__)


@pytest.mark.parametrize("name", MODULES)
def test_exports_are_complete(name):
    """Check that `awares` exports every public class of the module."""
    module = importlib.import_module(name)
    own = {
        key
        for key, value in vars(module).items()
        if inspect.isclass(value) and value.__module__ == name and not key.startswith("_")
    }
    assert own <= set(awares.__all__), (
        f"export {sorted(own - set(awares.__all__))} in awares/__init__.py"
    )


def test_names_that_others_rely_on():
    relied = "parse_turn visual_tokens run_episode advantages sft_loss grpo_loss scorer min_cover"
    relied += " collate token_logprobs Reward CropReward"
    assert set(relied.split()) <= set(awares.__all__)
    assert callable(importlib.import_module("awares.demonstration").demonstration)


def test_exported_data_is_frozen_and_has_an_example():
    for name in awares.__all__:
        value = getattr(awares, name)
        if inspect.isclass(value) and hasattr(value, "__dataclass_fields__"):
            assert vars(value)["__dataclass_params__"].frozen and "__slots__" in vars(value), name
            assert "Example:" in (value.__doc__ or ""), name
        elif inspect.isclass(value) and not issubclass(value, Enum):
            assert value.__doc__, name


def test_importing_costs_no_torch_and_no_platform():
    heavy = (
        "torch",
        "transformers",
        "ray",
        "vllm",
        "boto3",
        "deepspeed",
        "sentence_transformers",
        "awares_platform",
    )
    code = f"import sys, awares; print(*[name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
