import copy
import dataclasses
import pickle
from dataclasses import FrozenInstanceError, dataclass

import pytest

from awares.carried import Carried
from awares.episode import Episode, StopReason, Turn
from awares.view import View


@dataclass(frozen=True, slots=True)
class Range(Carried):
    low: int
    high: int

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError(f"{self.low} exceeds {self.high}")


@dataclass(frozen=True, slots=True)
class Single(Carried):
    value: str


EPISODE = Episode(
    sample_id="s0",
    image="ab",
    image_size=(112, 112),
    turns=(
        Turn(
            context_ids=(1, 2),
            views=(View(), View((0, 0, 9, 9))),
            sampled_ids=(3,),
            logprobs=(-0.5,),
            versions=(7,),
            text="7",
            crops=(),
            stop=None,
        ),
    ),
    answer="7",
    stop=StopReason.ANSWER,
    visual_tokens=4,
    rtr_token=0.25,
    rtr_pixel=0.25,
)


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("value", [EPISODE, Range(1, 2), Single("seven")])
def test_a_value_comes_back_equal_and_frozen(
    value: Episode | Range | Single, protocol: int
) -> None:
    found = pickle.loads(pickle.dumps(value, protocol))
    assert found == value and hash(found) == hash(value)
    assert copy.deepcopy(value) == value
    with pytest.raises(FrozenInstanceError):
        setattr(found, dataclasses.fields(found)[0].name, 3)


def test_pickling_looks_up_fields_once_for_a_class(monkeypatch: pytest.MonkeyPatch) -> None:
    pickle.loads(pickle.dumps(EPISODE))
    looked_up = []
    monkeypatch.setattr(dataclasses, "fields", looked_up.append)
    assert pickle.loads(pickle.dumps(EPISODE)) == EPISODE
    assert looked_up == []


def test_a_value_of_another_class_version_is_refused() -> None:
    rebuild, (kind, values) = Range(1, 2).__reduce__()
    with pytest.raises(ValueError, match="longer|shorter"):
        rebuild(kind, (*values, 3))
