"""Tests that a reader gets the whole policy from the parts that two DeepSpeed ranks publish."""

import uuid

import pytest
import torch

from awares.mini.policy import build_model, save_policy
from awares.mini.tokenizer import train_tokenizer
from awares_platform.config import PlatformConfig
from awares_platform.config.policy import PolicyConfig
from awares_platform.config.run import RunConfig
from awares_platform.store import ObjectStore
from awares_platform.weights import Subscriber
from tests.integration.publishing_rank import STAGES, STEPS
from tests.integration.ranks import run_ranks

pytestmark = [pytest.mark.slow, pytest.mark.integration]


@pytest.fixture(scope="module")
def run(seaweed: ObjectStore, tmp_path_factory: pytest.TempPathFactory) -> PlatformConfig:
    """Train and publish with two ranks at each ZeRO stage. Return the run's configuration."""
    directory, tokenizer = tmp_path_factory.mktemp("run"), train_tokenizer()
    base = directory / "base"
    base.mkdir()
    save_policy(build_model(tokenizer, seed=0), tokenizer, base)
    config = PlatformConfig(
        run=RunConfig(name=f"run-{uuid.uuid4().hex[:8]}", directory=directory),
        store=seaweed.config,
        policy=PolicyConfig(base=str(base), train_vision=True),
    )
    (directory / "setup.json").write_text(config.model_dump_json())
    run_ranks("publishing_rank", 2, str(directory / "setup.json"))
    return config


@pytest.mark.parametrize("stage", STAGES)
def test_two_ranks_publish_the_whole_policy(run: PlatformConfig, stage: int) -> None:
    subscriber, held = Subscriber(ObjectStore(run.store), f"{run.run.name}-{stage}"), None
    assert subscriber.head() == STEPS
    for version in range(1, STEPS + 1):
        held = subscriber.receive(version, held)
        wanted = torch.load(run.run.directory / f"{stage}-{version}.pt")
        assert held.state.keys() == wanted.keys()
        assert all(torch.equal(held.state[name], wanted[name]) for name in wanted)
        assert held.manifest.base == (version - 1 or None)
        written = [0, 0]
        for piece in held.manifest.pieces():
            written["r00001" in piece.shard] += piece.end - piece.start
        assert min(written) > 0.45 * sum(written)
    assert held is not None and 0 < (held.manifest.changed_ratio or 0) < 1
