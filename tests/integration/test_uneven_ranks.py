"""Tests that three ranks of a GRPO learner take the same step on eight sequences as one rank."""

from pathlib import Path

import pytest
import torch

from awares.mini.policy import build_model, save_policy
from awares.mini.tokenizer import train_tokenizer
from tests.integration.ranks import run_ranks
from tests.integration.uneven_rank import RATE, STAGES, step_shards

pytestmark = [pytest.mark.slow, pytest.mark.integration]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train with one rank, and again with three ranks. Return the directory of the results."""
    directory, tokenizer = tmp_path_factory.mktemp("uneven"), train_tokenizer()
    (directory / "base").mkdir()
    save_policy(build_model(tokenizer, seed=0), tokenizer, directory / "base")
    for ranks in (1, 3):
        run_ranks("uneven_rank", ranks, str(directory))
    return directory


def test_a_rank_without_enough_sequences_gets_a_filler() -> None:
    passes = [shard.minibatches[0].passes for shard in step_shards(9, 3)]
    assert [[one[0].filler for one in rank] for rank in passes] == [
        [False, False, False],
        [False, False, False],
        [False, False, True],
    ]


@pytest.mark.parametrize("stage", STAGES)
def test_three_ranks_do_what_one_rank_does(trained: Path, stage: int) -> None:
    alone, shared = (torch.load(trained / f"{stage}-{ranks}.pt") for ranks in (1, 3))
    assert shared[0] == pytest.approx(alone[0], rel=1e-4)
    assert shared[1].keys() == alone[1].keys()
    for name, tensor in alone[1].items():
        # AdamW's first step moves a weight by about RATE, even if the gradient is tiny. Rounding
        # can flip the sign of a tiny gradient, so the test bounds only the mean difference.
        assert (shared[1][name] - tensor).abs().mean() < 0.01 * RATE, name
