"""Tests reads of any part of a stored training state, and the errors for incomplete files."""

import json
from pathlib import Path

import numpy as np
import pytest

from awares.errors import PolicyError
from awares_platform.training.shards import StoredSlices

PATH = "runs/x/checkpoints/sft/step-00000050"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Return a directory with the stored state of three ranks.

    The ranks hold the elements 0 to 3, 4 to 6 and 7 to 9 of the weight `w`.
    """
    values = np.arange(10, dtype=np.float32)
    for rank, (start, end) in enumerate(((0, 4), (4, 7), (7, 10))):
        values[start:end].tofile(tmp_path / f"state-{rank:05d}.bin")
        slices = [["weight", "w", start, end - start, 0]]
        index = {"updates": 3, "slices": slices}
        (tmp_path / f"state-{rank:05d}.json").write_text(json.dumps(index))
    return tmp_path


@pytest.mark.parametrize(("start", "length"), [(0, 10), (0, 5), (5, 5), (3, 5), (9, 1)])
def test_any_part_is_found_in_the_slices_of_three_ranks(
    directory: Path, start: int, length: int
) -> None:
    stored = StoredSlices(directory, PATH)
    assert stored.updates == 3
    assert stored.values("weight", "w", start, length).tolist() == [*range(start, start + length)]


def test_files_of_an_unfinished_upload_by_more_ranks_are_ignored(tmp_path: Path) -> None:
    """Five ranks are killed during the upload of a step. Then two ranks upload the same step."""
    for ranks, value in ((5, 1.0), (2, 2.0)):
        for rank in range(ranks):
            length = 10 // ranks
            np.full(length, value, np.float32).tofile(tmp_path / f"state-{rank:05d}.bin")
            slices = [["weight", "w", rank * length, length, 0]]
            index = {"updates": 3, "ranks": ranks, "slices": slices}
            (tmp_path / f"state-{rank:05d}.json").write_text(json.dumps(index))
    assert StoredSlices(tmp_path, PATH).values("weight", "w", 0, 10).tolist() == [2.0] * 10


@pytest.mark.parametrize("lost", ["state-00001.json", "state-00001.bin"])
def test_a_lost_file_is_named_with_the_remedy(directory: Path, lost: str) -> None:
    (directory / lost).unlink()
    with pytest.raises(PolicyError) as raised:
        StoredSlices(directory, PATH).values("weight", "w", 0, 10)
    message = str(raised.value)
    assert message.startswith(f"checkpoint {PATH} ")
    assert message.endswith("delete runs/x/checkpoints/sft to start this job anew")
    assert "state-00001" in message or "lacks values of w (weight)" in message


def test_a_file_that_is_cut_short_is_noticed(directory: Path) -> None:
    whole = (directory / "state-00002.bin").read_bytes()
    (directory / "state-00002.bin").write_bytes(whole[:8])
    with pytest.raises(PolicyError, match=r"lacks values of w \(weight\)"):
        StoredSlices(directory, PATH).values("weight", "w", 0, 10)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"updates": 3}'])
def test_a_damaged_index_is_named(directory: Path, content: str) -> None:
    (directory / "state-00002.json").write_text(content)
    with pytest.raises(PolicyError, match=r"has a damaged file state-00002\.json"):
        StoredSlices(directory, PATH)
