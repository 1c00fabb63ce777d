"""Free boxes pass through curation, demonstrations, episodes, rewards, metrics and rows."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from transformers import AutoTokenizer

from awares import mini
from awares.chat import ChatFormat
from awares.demonstration import demonstration
from awares.episode import run_episode
from awares.generate import FinishReason, Generation
from awares.reward import CropReward
from awares.sample import Label, Sample
from awares.view import View
from awares_platform.config import PlatformConfig
from awares_platform.data.rows import decode_rows, encode_rows
from awares_platform.evaluate.results import policy_metrics
from awares_platform.evaluate.scored import Scored
from awares_platform.method.answers import Answers
from awares_platform.method.environment import environment, episode_spec, greedy
from awares_platform.method.family import model_family
from awares_platform.method.labeller import Labeller

IMAGE = Image.linear_gradient("L").resize((112, 112)).convert("RGB")
SAMPLE = Sample("s", "a" * 64, "digit on the red circle?", "7", evidence=((28, 28, 56, 56),))


def test_a_free_box_from_label_to_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine is scripted: the mini policy has never seen this grammar."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    method = {"environment": "free_box:FreeBox", "environment_settings": {"padding": 0.0}}
    config = PlatformConfig.model_validate({"method": method})
    asked = environment(config.method)
    chat = ChatFormat(AutoTokenizer.from_pretrained(Path(mini.POLICY)))

    async def label() -> Sample | None:
        async with Labeller(config.method, config.curate, lambda digest: IMAGE) as labeller:
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
