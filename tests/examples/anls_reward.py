"""An example of a custom reward: the answer's ANLS score, minus a price for each crop.

Put this file on PYTHONPATH on every node, and name the class in the setup:

    [method]
    reward = "anls_reward:AnlsReward"
    reward_settings = { call_price = 0.5 }
"""

from collections.abc import Sequence

from awares import Episode, RewardValue, Sample, scorer


class AnlsReward:
    """Rewards the answer's ANLS score, and subtracts a price for each crop.

    total = answer_weight * ANLS(answer, truth) - call_price * (number of crops)
    """

    def __init__(self, answer_weight: float, call_price: float = 0.25) -> None:
        self._answer_weight = answer_weight
        self._call_price = call_price
        self._anls = scorer("docvqa")

    def __call__(self, episodes: Sequence[Episode], samples: Sequence[Sample]) -> list[RewardValue]:
        """Return one value for each episode.

        This reward ignores the labels of the samples. A reward needs them only if it punishes a
        missing request for crops.
        """
        return [self._value(*pair) for pair in zip(episodes, samples, strict=True)]

    def _value(self, episode: Episode, sample: Sample) -> RewardValue:
        answer = episode.answer or ""
        spelling = self._answer_weight * self._anls(answer, [sample.answer], sample.question)
        price = self._call_price * len(episode.crops)
        return RewardValue(spelling - price, {"spelling": spelling, "price": price})
