"""The reward of an episode, in GRPO training and in evaluation.

    episodes, samples --Reward--> a total and named parts for each episode

`CropReward` is the paper's reward (section 3.4):

    total = answer_weight * answer_reward(answer, truth) - cost

    label  call       cost
    HR     none       alpha_miss
    LR     none       0
    any    crops      alpha_use + lambda_area * area
    any    malformed  malformed_cost

A call is a request for crops, and `area` is the sum of the crops' shares of the image's area. A
malformed turn after a call costs malformed_cost in addition. Without an answer, answer_reward is 0.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from awares.carried import Carried
from awares.episode import Episode, StopReason
from awares.errors import ConfigError, DataError
from awares.evaluation import scorers
from awares.sample import Label, Sample
from awares.similarity import BUNDLED, SentenceSimilarity

AnswerReward = Callable[[Sequence[str], Sequence[str]], list[float]]
"""Takes answers and the true answers in the same order. Returns a score per answer, 1 if right."""


@dataclass(frozen=True, slots=True)
class RewardValue(Carried):
    """The reward of one episode.

    GRPO trains on `total`. Each entry of `parts` is reported as the metric `reward/<name>`.

    Example:
        RewardValue(9.74, {"answer": 10.0, "cost": 0.26})
    """

    total: float
    parts: Mapping[str, float]


class Reward(Protocol):
    """Returns one RewardValue for each pair of an episode and its sample.

    GRPO calls the reward with the G episodes of one sample, and evaluation with all episodes of a
    policy. If the reward raises an exception, the job stops.

    To use a reward of your own, set `method.reward = "module:attribute"`. The attribute gets the
    settings of [method] that it has parameters for, and all of [method.reward_settings].

    Example:
        class RightAnswer:
            def __init__(self, call_cost: float = 0.1) -> None:
                self._call_cost = call_cost

            def __call__(self, episodes, samples):
                return [self._value(*pair) for pair in zip(episodes, samples, strict=True)]

            def _value(self, episode, sample):
                right = float(episode.answer == sample.answer)
                cost = self._call_cost if episode.crops else 0.0
                return RewardValue(right - cost, {"answer": right, "cost": cost})
    """

    def __call__(
        self, episodes: Sequence[Episode], samples: Sequence[Sample]
    ) -> list[RewardValue]: ...


class CropReward:
    """The paper's reward with the parts `answer` and `cost`, as defined at the top of this module.

    The paper has no value for `malformed_cost`. Raises ConfigError if the answer reward is unknown
    or the sentence encoder cannot be loaded.

    Example:
        CropReward("exact", alpha_miss=1.0)([episode], [sample])
        # [RewardValue(total=9.74, parts={"answer": 10.0, "cost": 0.26})]
    """

    def __init__(
        self,
        answer: str | AnswerReward = "similarity",
        *,
        answer_weight: float = 10.0,
        alpha_miss: float = 2.0,
        alpha_use: float = 0.25,
        lambda_area: float = 0.01,
        malformed_cost: float = 2.0,
        similarity_model: str = BUNDLED,
    ) -> None:
        named = isinstance(answer, str)
        self._answer = answer_reward(answer, similarity_model) if named else answer
        self._answer_weight = answer_weight
        self._alpha_miss = alpha_miss
        self._alpha_use = alpha_use
        self._lambda_area = lambda_area
        self._malformed_cost = malformed_cost

    def __call__(self, episodes: Sequence[Episode], samples: Sequence[Sample]) -> list[RewardValue]:
        """Reward all episodes with one call of the answer reward.

        Raises DataError for a sample without a label. A failed episode gets the reward 0.
        """
        answers = self._answer_parts(episodes, samples)
        costs = [self.cost(*pair) for pair in zip(episodes, samples, strict=True)]
        return [
            RewardValue(answer - cost, {"answer": answer, "cost": cost})
            for answer, cost in zip(answers, costs, strict=True)
        ]

    def _answer_parts(self, episodes: Sequence[Episode], samples: Sequence[Sample]) -> list[float]:
        """Return the weighted score of each episode's answer.

        If a sample has several accepted answers, the one with the highest score counts.
        """
        compared = [
            (index, episode.answer, truth)
            for index, (episode, sample) in enumerate(zip(episodes, samples, strict=True))
            if episode.answer and episode.stop is not StopReason.ERROR
            for truth in sample.answers
        ]
        scores = self._answer([one[1] for one in compared], [one[2] for one in compared])
        best: dict[int, float] = {}
        for (index, _, _), score in zip(compared, scores, strict=True):
            best[index] = max(score, best.get(index, score))
        return [self._answer_weight * best.get(index, 0.0) for index in range(len(episodes))]

    def cost(self, episode: Episode, sample: Sample) -> float:
        """Return the cost by the table in the module's docstring, or 0 for a failed episode.

        Raises DataError for a sample without a label.
        """
        if sample.label is None:
            raise DataError(
                f"sample {sample.sample_id} has no label, so a missed call cannot be told; "
                "run curate first"
            )
        if episode.stop is StopReason.ERROR:
            return 0.0
        is_malformed = episode.stop in (StopReason.MALFORMED, StopReason.TURN_LIMIT)
        malformed = self._malformed_cost if is_malformed else 0.0
        if episode.crops:
            return self._alpha_use + self._lambda_area * episode.area + malformed
        if malformed:
            return malformed
        return self._alpha_miss if sample.label is Label.HR else 0.0


def answer_reward(name: str, similarity_model: str = BUNDLED) -> AnswerReward:
    """Return the answer reward `name`. Raises ConfigError for an unknown name.

    - similarity: cosine of sentence embeddings, -1 to 1 (paper, section 3.4)
    - exact: 1 if the answer equals the truth after normalising, else 0
    - anls: normalised Levenshtein similarity, 0 to 1

    Example:
        answer_reward("anls")(["seven"], ["sevan"])  # [0.8]
    """
    if name == "similarity":
        return SentenceSimilarity(similarity_model)
    if name == "exact":
        return _by_scorer(scorers.exact)
    if name == "anls":
        return _by_scorer(partial(scorers.docvqa, version="repaired"))
    raise ConfigError(
        f"method.reward_settings.answer = {name!r} is unknown; use similarity, exact or anls"
    )


def _by_scorer(score: Callable[[str, Sequence[str]], float]) -> AnswerReward:
    def rewards(answers: Sequence[str], truths: Sequence[str]) -> list[float]:
        return [score(answer, (truth,)) for answer, truth in zip(answers, truths, strict=True)]

    return rewards
