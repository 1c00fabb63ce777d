"""Tests that curation, SFT, GRPO and the evaluation run with the example environment FreeBox."""

import asyncio
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

import pyarrow.parquet as parquet
import pytest
from PIL import Image
from transformers import AutoTokenizer

from awares import mini
from awares.chat import ChatFormat
from awares.crops import Box
from awares.demonstration import demonstration
from awares.environment import Environment, Request, readable
from awares.episode import Episode, StopReason, run_episode
from awares.generate import FinishReason, Generation
from awares.images import render
from awares.reward import CropReward
from awares.sample import Label, Sample
from awares.tokens import visual_tokens
from awares.view import View, view_size
from awares_platform.config import PlatformConfig
from awares_platform.curate import job as curate
from awares_platform.data.dataset import Images, read_samples
from awares_platform.data.rows import decode_rows, encode_rows
from awares_platform.evaluate import job as evaluate
from awares_platform.evaluate.results import policy_metrics
from awares_platform.evaluate.scored import Scored
from awares_platform.grpo import job as grpo
from awares_platform.grpo.job import journal_of
from awares_platform.method.answers import Answers
from awares_platform.method.environment import environment, episode_spec, greedy, vision_limits
from awares_platform.method.family import model_family
from awares_platform.method.labeller import Labeller
from awares_platform.report import page as report
from awares_platform.runtime import metrics
from awares_platform.runtime.session import session as open_session
from awares_platform.sft import job as sft
from awares_platform.store import ObjectStore
from awares_platform.training.curated_set import with_labels

EXAMPLES = Path(__file__).parent
Rows = Sequence[Mapping[str, Any]]
SIDES = (112, 112)
"""Width and height in pixels of every image of AwaRes-Mini."""

IMAGE = Image.linear_gradient("L").resize((112, 112)).convert("RGB")
SAMPLE = Sample("s", "a" * 64, "digit on the red circle?", "7", evidence=((28, 28, 56, 56),))


def test_a_free_box_from_label_to_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    """Follow one requested box through the demonstration, the episode, the reward and the metrics.

    A fake engine returns the demonstration's tokens, because the mini policy writes no requests of
    the form LOOK [...] before SFT teaches it.
    """
    monkeypatch.syspath_prepend(EXAMPLES)
    method = {"environment": "free_box:FreeBox", "environment_settings": {"padding": 0.0}}
    config = PlatformConfig.model_validate({"method": method})
    asked = environment(config.method)
    chat = ChatFormat(AutoTokenizer.from_pretrained(Path(mini.POLICY)))

    async def label() -> Sample | None:
        async with Labeller(
            config.method, config.curate, model_family(config.policy), lambda _: IMAGE
        ) as labeller:
            answers = Answers(SAMPLE, low="1", full="7", confidence=0.5, fault="")
            return (await labeller([answers]))[0].sample

    labelled = asyncio.run(label())
    assert labelled == replace(SAMPLE, label=Label.HR, crops=("250, 250, 500, 500",))
    assert decode_rows(encode_rows([labelled]), "key").samples == (labelled,)
    taught = demonstration(labelled, chat, IMAGE.size, asked)
    assert taught.turns[0].text == "LOOK [250, 250, 500, 500]"
    assert taught.turns[1].views == (View((28, 28, 56, 56)),)
    targets = iter(turn.sampled_ids for turn in taught.turns)

    async def engine(request: object) -> Generation:
        ids = next(targets)
        return Generation(ids, (0.0,) * len(ids), (0,) * len(ids), FinishReason.STOP)

    spec = episode_spec(config.method, model_family(config.policy), greedy(32))
    episode = asyncio.run(run_episode(labelled, IMAGE, engine, chat, spec, "s"))
    assert episode.turns == taught.turns
    assert (episode.answer, episode.area, episode.visual_tokens) == ("7", 0.0625, 4 + 1)
    reward = CropReward("exact")([episode], [labelled])[0]
    assert reward.parts["cost"] == pytest.approx(0.25 + 0.01 * 0.0625)
    metrics = policy_metrics([Scored(labelled, labelled, episode, 1.0, None)], True, 0, asked)
    assert metrics["crops"] == {"direct": 0, "other": 1}
    assert (metrics["decision"]["region_exact"], metrics["decision"]["mean_area"]) == (1.0, 0.0625)


@pytest.fixture
def config(seaweed: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PlatformConfig:
    """Return the config of a small run of the mini setup.

    Also set PYTHONPATH, so that Ray's workers can import the example environment.
    """
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.setenv("PYTHONPATH", str(EXAMPLES), prepend=os.pathsep)
    settings = {
        "run": {"name": "free-box", "directory": str(tmp_path / "runs")},
        "store": {"url": "s3://awares/free-box", "endpoint": seaweed.config.endpoint},
        "data": {
            "train_samples": 32,
            "test_samples": 24,
            "shard_rows": 16,
            "image_cache": str(tmp_path / "images"),
        },
        "method": {
            "environment": "free_box:FreeBox",
            "environment_settings": {"padding": 0.05},
            "system_prompt": "awares",
        },
        "engine": {"kv_cache_gib": 0.25},
        "curate": {"max_tokens": 8},
        "sft": {"epochs": 24, "batch_size": 8, "micro_batch": 8, "learning_rate": 3e-3},
        "grpo": {"steps": 2, "groups_per_step": 4, "group_size": 4, "max_tokens": 32},
        "evaluate": {"latency_questions": 2},
    }
    return PlatformConfig.model_validate(settings)


@pytest.mark.integration
@pytest.mark.slow
def test_free_boxes_run_on_the_mini_setup(config: PlatformConfig) -> None:
    """Check that curation, SFT, GRPO, the evaluation and the report run with FreeBox.

    SFT overfits a few demonstrations. Otherwise the policy would not ask for boxes in GRPO and in
    the evaluation.
    """
    directory = Path(config.run.directory) / config.run.name
    asked, store = environment(config.method), ObjectStore.from_config(config.store)
    with open_session(config) as session:
        curated = curate.run(session)
        samples = read_samples(store, curated.dataset.split("/")[1], "train")
        check_demonstrations(samples, asked)
        sft.run(session)
        grpo.run(session)
        results = evaluate.run(session).results
        check_rollouts(store, with_labels(session, store), asked)

    high = [sample for sample in samples if sample.label is Label.HR]
    assert curated.lr and curated.crops == {"other": curated.hr} == {"other": len(high)}
    taught = metrics.read(directory / "sft" / "metrics.jsonl")
    losses = [row.values["loss/tool_turn"] for row in taught if "loss/tool_turn" in row.values]
    assert (losses[-1] or 0) < 0.1 * (losses[0] or 0)
    # Row 0 has only the metrics of the starting policy on held-out questions.
    for row in metrics.read(directory / "grpo" / "metrics.jsonl")[1:]:
        # The gap between the logprobs of the engine and of the learner would be large if the engine
        # and the learner rendered different crops.
        assert (row.values["importance/gap"] or 0) < 0.03
    assert results["questions"] == config.data.test_samples
    assert set(results["labels"]["crops"]) == {"other"}
    rows = {
        policy: parquet.read_table(
            directory / "evaluate" / f"episodes-{policy}.parquet"
        ).to_pylist()
        for policy in results["policies"]
    }
    for policy in ("sft", "awares"):
        check_metrics(results["policies"][policy], rows[policy], config, asked)
    check_escalation(rows["awares"], rows["full"], rows["escalate"])
    page = report.run(config, Images.of(store, config.data)).read_text()
    assert "answers directly" in page and "another region" in page
    assert page.count("<article") == 12


def check_escalation(awares: Rows, full: Rows, escalate: Rows) -> None:
    """Check the answers and the costs of the policy `escalate`.

    If `awares` asks for a box, `escalate` gives the answer of `full` and pays for both passes.
    """
    assert any(row["crops"] for row in awares)
    for asked, fresh, row in zip(awares, full, escalate, strict=True):
        expected = fresh if asked["crops"] else asked
        assert row["answer"] == expected["answer"]
        assert row["rtr_token"] == (1.25 if asked["crops"] else 0.25)


def check_demonstrations(samples: Sequence[Sample], asked: Environment) -> None:
    """Check that every HR sample has one crop, which contains the sample's evidence boxes.

    Also check that the mini policy's tokenizer encodes and decodes the request without a change.
    """
    chat = ChatFormat(AutoTokenizer.from_pretrained(Path(mini.POLICY)), asked.system_prompt)
    for sample in (sample for sample in samples if sample.label is Label.HR):
        request = readable(asked, sample.crops)
        assert request is not None and request == asked.cover(sample.evidence, SIDES)
        turn, answer = demonstration(sample, chat, SIDES, asked).turns
        assert chat.decode(turn.sampled_ids) == turn.text == f"LOOK [{sample.crops[0]}]"
        [view] = answer.views
        assert view.box is not None and all(_holds(view.box, box) for box in sample.evidence)


def check_rollouts(store: ObjectStore, config: PlatformConfig, asked: Environment) -> None:
    """Check that the rollouts of GRPO answer each well-formed request with the requested crop.

    Also check that the cost in the reward depends on the crop's area.
    """
    images = Images.of(store, config.data)
    members = [
        member for group in journal_of(config, store).read().groups for member in group.members
    ]
    assert len(members) >= 2 * 4 * 4 and not any(member.failed for member in members)
    asking = [member for member in members if member.episode.crops]
    assert asking
    for member in asking:
        episode = member.episode
        _check_crop(episode, images, asked)
        if episode.stop is StopReason.ANSWER:
            assert member.reward.parts["cost"] == pytest.approx(0.25 + 0.01 * episode.area)


def _check_crop(episode: Episode, images: Images, asked: Environment) -> None:
    [region], (first, second) = episode.crops, episode.turns
    assert asked.parse(first.text) == Request((region,)) and first.text == f"LOOK [{region}]"
    left, top, right, bottom = map(int, region.split(", "))
    box = (
        left * SIDES[0] // 1000,
        top * SIDES[1] // 1000,
        -(-right * SIDES[0] // 1000),
        -(-bottom * SIDES[1] // 1000),
    )
    image = images(episode.image)
    assert (first.views, second.views) == ((View(),), (View(box),))
    assert render(image, second.views[0]).tobytes() == image.crop(box).tobytes()
    assert episode.area == pytest.approx((right - left) * (bottom - top) / 1_000_000)


def check_metrics(
    found: Mapping[str, Any],
    rows: Rows,
    config: PlatformConfig,
    asked: Environment,
) -> None:
    """Compare a policy's metrics with values that are recomputed from the turns of its episodes."""
    limits = vision_limits(config.method, model_family(config.policy))
    areas, tokens = [], []
    for row in rows:
        parsed = asked.parse(row["turns"][0])
        request = parsed if isinstance(parsed, Request) and len(row["turns"]) > 1 else None
        views = asked.views(request, SIDES) if request else ()
        assert row["crops"] == list(request.regions if request else ())
        assert row["boxes"] == [list(view.box or ()) for view in views]
        sizes = [view_size(view, SIDES) for view in (View(), *views)]
        tokens.append(sum(visual_tokens(size, limits) for size in sizes))
        assert row["visual_tokens"] == tokens[-1]
        areas += [asked.cost(request, SIDES)] if request else []
    assert areas, "the policy must ask for at least one box"
    # A malformed first turn is neither a request nor an answer.
    unanswered = sum(not row["crops"] and row["answer"] is None for row in rows)
    direct = len(rows) - len(areas) - unanswered
    assert found["crops"] == {"direct": direct, "other": len(areas)}
    assert found["visual_tokens"] == pytest.approx(mean(tokens))
    assert found["rtr_token"] == pytest.approx(mean(tokens) / visual_tokens(SIDES, limits))
    assert found["decision"]["mean_area"] == pytest.approx(mean(areas))


def _holds(outer: Box, inner: Box) -> bool:
    starts = outer[0] <= inner[0] and outer[1] <= inner[1]
    return starts and inner[2] <= outer[2] and inner[3] <= outer[3]
