"""Supervised trajectories: what the policy should have sampled for a labelled sample (paper, section 3.2), in the ids of `ChatFormat`.

LR:  prompt + low view -> answer
HR:  prompt + low view -> GET_CROPS: [...] -> crops -> answer
"""

from dataclasses import dataclass

from awares.chat import ChatFormat
from awares.crops import CropId
from awares.episode import StopReason, Turn
from awares.errors import DataError
from awares.protocol import format_request
from awares.sample import Label, Sample
from awares.view import View, crop_view


@dataclass(frozen=True, slots=True)
class Trajectory:
    """A target sequence, shaped as an episode: the turns' `sampled_ids` are the targets, with logprobs and versions zero.

    Example:
        Trajectory("mini/train/17", "9f2c...", (112, 112), (turn,))
    """

    sample_id: str
    image: str
    image_size: tuple[int, int]  # width, height
    turns: tuple[Turn, ...]

    @property
    def tool_flags(self) -> tuple[bool, ...]:
        """Per target token, whether it belongs to the tool-call turn."""
        return tuple(bool(turn.crops) for turn in self.turns for _ in turn.sampled_ids)


def trajectory(sample: Sample, chat: ChatFormat, image_size: tuple[int, int]) -> Trajectory:
    """The trajectory of a labelled sample whose image is `image_size` (width, height).

    Raises DataError for a sample without a label, without an answer, or labelled HR without crops.
    """
    if sample.label is None:
        raise DataError(f"sample {sample.sample_id} has no label; run curate first")
    if not sample.answer.strip():
        raise DataError(f"sample {sample.sample_id} has no answer; remove it")
    prompt, low = chat.first_turn(sample.question), (View(None),)
    if sample.label is Label.LR:
        return Trajectory(
            sample.sample_id, sample.image, image_size, (_target(chat, prompt, low, sample.answer),)
        )
    if not sample.crops:
        raise DataError(
            f"sample {sample.sample_id} is labelled HR but has no crops; set method.mapping to min_cover and run curate again"
        )
    views = tuple(crop_view(crop, image_size) for crop in sample.crops)
    request = _target(chat, prompt, low, format_request(sample.crops), sample.crops)
    answer = _target(chat, chat.tool_reply(len(views)), views, sample.answer)
    return Trajectory(sample.sample_id, sample.image, image_size, (request, answer))


def _target(
    chat: ChatFormat,
    context: tuple[int, ...],
    views: tuple[View, ...],
    text: str,
    crops: tuple[CropId, ...] = (),
) -> Turn:
    ids = chat.target(text)
    zeros = (0.0,) * len(ids)
    return Turn(
        context,
        views,
        ids,
        zeros,
        (0,) * len(ids),
        text,
        crops,
        None if crops else StopReason.ANSWER,
    )
