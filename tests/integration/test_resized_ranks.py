"""Tests that a training with 4 ranks, then 2, then 1 gives the losses of a training with one rank.

Some of these trainings also change the ZeRO stage.
"""

import json
from pathlib import Path

import pytest

from awares.mini.policy import build_model, save_policy
from awares.mini.tokenizer import train_tokenizer
from tests.integration.ranks import run_ranks
from tests.integration.resized_rank import CHAINS, RANKS, STEPS

pytestmark = [pytest.mark.slow, pytest.mark.integration]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run each training of CHAINS with one rank, and again in parts with 4, 2 and 1 ranks.

    Return the directory of the results.
    """
    directory, tokenizer = tmp_path_factory.mktemp("resized"), train_tokenizer()
    (directory / "base").mkdir()
    save_policy(build_model(tokenizer, seed=0), tokenizer, directory / "base")
    run_ranks("resized_rank", 1, str(directory), "-1")
    for part, ranks in enumerate(RANKS):
        run_ranks("resized_rank", ranks, str(directory), str(part))
    return directory


def losses(directory: Path, chain: str, alone: bool) -> list[float]:
    lines = (directory / f"{chain}-{alone}.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize("chain", CHAINS)
def test_the_loss_goes_on_after_each_change_of_the_ranks(trained: Path, chain: str) -> None:
    straight, resized = (losses(trained, chain, alone) for alone in (True, False))
    assert len(straight) == len(resized) == STEPS * len(RANKS)
    bound = 1e-3 if CHAINS[chain][1] == "float32" else 2e-2
    assert resized == pytest.approx(straight, abs=bound)
    # The loss must fall or rise by more than the bound. Otherwise the test would also pass if a
    # part did not load the checkpoint.
    assert abs(straight[STEPS] - straight[0]) > 10 * bound
