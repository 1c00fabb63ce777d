"""Builds demonstrations: the turns that SFT teaches for a labelled question (paper, section 3.2).

The label says whether the low-resolution view suffices (LR) or not (HR):

    LR:  prompt + first view -> answer
    HR:  prompt + first view -> request -> views -> answer
"""

from dataclasses import dataclass

from awares.chat import ChatFormat
from awares.environment import Environment, Request, readable
from awares.episode import StopReason, Turn
from awares.errors import DataError
from awares.sample import Label, Sample
from awares.ten_crops import TEN_CROPS
from awares.view import View


@dataclass(frozen=True, slots=True)
class Demonstration:
    """The target tokens of one sample, stored as the turns of an episode.

    Example:
        Demonstration("mini/train/17", "9f2c...", (112, 112), (turn,))
    """

    sample_id: str
    image: str
    """The hash of the image file."""
    image_size: tuple[int, int]
    """The width and height of the image, in pixels."""
    turns: tuple[Turn, ...]
    """The turns. Their `sampled_ids` are the target tokens. Their logprobs and versions are 0."""

    @property
    def tool_flags(self) -> tuple[bool, ...]:
        """One flag for each target token. The flag is true if the token belongs to a request."""
        return tuple(bool(turn.crops) for turn in self.turns for _ in turn.sampled_ids)


def demonstration(
    sample: Sample,
    chat: ChatFormat,
    image_size: tuple[int, int],
    environment: Environment = TEN_CROPS,
) -> Demonstration:
    """Return the demonstration of a labelled sample, whose image has the size (width, height).

    Raises DataError if the sample lacks a label or an answer, or if a sample with the label HR
    lacks crops that `environment` offers.
    """
    if sample.label is None:
        raise DataError(f"sample {sample.sample_id} has no label; run curate first")
    if not sample.answer.strip():
        raise DataError(f"sample {sample.sample_id} has no answer; remove it")
    context, views = chat.first_turn(sample.question), (environment.first_view(image_size),)
    turns: tuple[Turn, ...] = ()
    if sample.label is Label.HR:
        request = _target_request(sample, environment)
        area = environment.cost(request, image_size)
        turns = (_target(chat, context, views, environment.write(request), request, area),)
        views = environment.views(request, image_size)
        context = chat.tool_reply(len(views))
    turns += (_target(chat, context, views, sample.answer),)
    return Demonstration(sample.sample_id, sample.image, image_size, turns)


def _target_request(sample: Sample, environment: Environment) -> Request:
    if not sample.crops:
        raise DataError(
            f"sample {sample.sample_id} is labelled HR but has no crops; "
            "set method.mapping to min_cover and run curate again"
        )
    request = readable(environment, sample.crops)
    if request is None:
        raise DataError(
            f"sample {sample.sample_id} has the crops {list(sample.crops)}, which the environment "
            "does not offer; run curate again with this method.environment"
        )
    return request


def _target(
    chat: ChatFormat,
    context: tuple[int, ...],
    views: tuple[View, ...],
    text: str,
    request: Request | None = None,
    area: float = 0.0,
) -> Turn:
    ids = chat.target(text)
    return Turn(
        context_ids=context,
        views=views,
        sampled_ids=ids,
        logprobs=(0.0,) * len(ids),
        versions=(0,) * len(ids),
        text=text,
        crops=request.regions if request else (),
        stop=None if request else StopReason.ANSWER,
        area=area,
    )
