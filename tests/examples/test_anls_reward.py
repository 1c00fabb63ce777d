"""Tests that GRPO and the evaluation use the example reward AnlsReward.

tests/integration/test_grpo.py also trains a policy with this reward.
"""

from pathlib import Path

import pytest

from awares.episode import Episode, StopReason, Turn
from awares.sample import Label, Sample
from awares_platform.config import PlatformConfig, load
from awares_platform.evaluate.scored import score_all
from awares_platform.grpo.group import GroupRollout, Prompt
from awares_platform.grpo.scoring import Scoring
from awares_platform.method.play import Played
from awares_platform.method.reward import build_reward, check_reward

SETUP = """
[method]
reward = "anls_reward:AnlsReward"
reward_settings = { call_price = 0.5 }
"""
SAMPLE = Sample("s", "ab" * 32, "which word?", "seven", label=Label.LR)
WANT = [7.5, 8.0, 0.0]


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PlatformConfig:
    monkeypatch.syspath_prepend(Path(__file__).parent)
    setup = tmp_path / "setup.toml"
    setup.write_text(SETUP)
    return load(setup)


def episode(answer: str | None, crops: int = 0) -> Episode:
    stop = StopReason.ANSWER if answer else StopReason.MALFORMED
    asked = tuple(str(number) for number in range(crops))
    turn = Turn(
        context_ids=(1,),
        views=(),
        sampled_ids=(2,),
        logprobs=(-0.1,),
        versions=(0,),
        text=answer or "",
        crops=asked,
        stop=stop,
    )  # pyright: ignore
    return Episode(
        sample_id="s",
        image="ab" * 32,
        image_size=(112, 112),
        turns=(turn,),
        answer=answer,
        stop=stop,
        visual_tokens=4,
        rtr_token=0.25,
        rtr_pixel=0.25,
    )


EPISODES = (episode("sevan", crops=1), episode("sevan"), episode(None))


def test_grpo_scores_with_it(config: PlatformConfig) -> None:
    check_reward(config.method)
    scoring = Scoring(build_reward(config.method), config.grpo)
    group = scoring(Prompt(0, 0, SAMPLE), GroupRollout(EPISODES, 0.0, 1.0))
    assert [member.reward.total for member in group.members] == pytest.approx(WANT)
    assert group.members[0].reward.parts == pytest.approx({"spelling": 8.0, "price": 0.5})
    advantages = [member.advantage for member in group.members]
    assert advantages[1] > advantages[0] > 0 > advantages[2]  # type: ignore[operator]


def test_evaluation_scores_with_it(config: PlatformConfig) -> None:
    samples = [Sample(f"s{index}", "", "?", "seven", label=Label.LR) for index in range(3)]
    rows = [Played(*pair, 0.02, "") for pair in zip(samples, EPISODES, strict=True)]
    labelled = {sample.sample_id: sample for sample in samples}
    scored = score_all(rows, labelled, "exact", set(), build_reward(config.method))
    assert [one.reward for one in scored] == pytest.approx(WANT)
