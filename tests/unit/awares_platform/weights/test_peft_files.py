"""Tests that a damaged adapter in peft's layout is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from awares_platform.weights.adapter import (
    CONFIG_FILE,
    DOWN,
    UP,
    WEIGHTS_FILE,
    rank_in,
    read_peft,
    write_peft,
)
from awares_platform.weights.manifest import WeightsError

ADAPTER = {f"layer{DOWN}": torch.ones(2, 3), f"layer{UP}": torch.ones(4, 2)}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    write_peft(ADAPTER, 1.5, tmp_path)
    return tmp_path


def test_an_adapter_comes_back_as_it_was_written(directory: Path) -> None:
    tensors, scale = read_peft(directory)
    assert scale == 1.5 and rank_in(directory) == 2
    assert tensors.keys() == ADAPTER.keys()
    assert all(torch.equal(tensors[name], ADAPTER[name]) for name in ADAPTER)


@pytest.mark.parametrize(
    "settings",
    [
        {"r": 0},
        {"r": -2},
        {"r": "2"},
        {"r": 2.0},
        {"r": True},
        {"r": None},
        {"lora_alpha": None},
        {"lora_alpha": "3"},
        {"lora_alpha": float("nan")},
        {"lora_alpha": float("inf")},
    ],
)
def test_a_wrong_value_is_named(directory: Path, settings: dict[str, Any]) -> None:
    config = json.loads((directory / CONFIG_FILE).read_text())
    (directory / CONFIG_FILE).write_text(json.dumps(config | settings))
    with pytest.raises(WeightsError, match=rf"{CONFIG_FILE} states {next(iter(settings))}="):
        read_peft(directory)


def test_another_rank_than_that_of_the_tensors_is_refused(directory: Path) -> None:
    config = json.loads((directory / CONFIG_FILE).read_text())
    (directory / CONFIG_FILE).write_text(json.dumps(config | {"r": 3}))
    with pytest.raises(WeightsError, match=r"states rank 3, its tensors have 2\); export it again"):
        read_peft(directory)


@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b"7", b"{}", b"\xff", b'{"r": 2}'])
@pytest.mark.parametrize("file", [CONFIG_FILE, WEIGHTS_FILE])
def test_a_damaged_file_is_refused(directory: Path, file: str, content: bytes | None) -> None:
    (directory / file).unlink()
    if content is not None:
        (directory / file).write_bytes(content)
    with pytest.raises(WeightsError, match="holds no adapter .*; export it again"):
        read_peft(directory)
