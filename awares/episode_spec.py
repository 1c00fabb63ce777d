"""Defines the settings of an episode, and keeps an episode within the engine's context.

    text + first view + requested views + sampled tokens of all turns <= Budget.context
           +---- Budget.visual_tokens ----+

`grant` keeps requested views within the budget. `check_room` refuses questions that are too long.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from awares.budget import Budget
from awares.chat import ChatFormat
from awares.environment import Environment, Malformed, Request
from awares.errors import TooLong
from awares.generate import Sampling
from awares.ten_crops import TEN_CROPS
from awares.tokens import Size, VisionLimits, visual_tokens
from awares.view import View, view_size

_SHRINK = 0.9
_STEPS = 80
_VIEWS_LEFT = 2
"""Beside the first view, the budget must have room for this many of the smallest square views.

The number is not 1, because the smallest view of another shape may cost more tokens.
"""


@dataclass(frozen=True, slots=True)
class EpisodeSpec:
    """The settings of an episode.

    Example:
        EpisodeSpec(VisionLimits(min_pixels=784), TenCrops(), sampling=Sampling(temperature=1.0))
    """

    limits: VisionLimits
    """The limits of the image processor."""
    environment: Environment = TEN_CROPS
    low_ratio: float = 0.5
    """The ratio of a low-resolution view's side to the image's side, if `View.scale` is 1."""
    sampling: Sampling = Sampling()
    budget: Budget | None = None
    """The limits of the episode. If None, every request before the last turn is granted."""

    def tokens(self, views: Sequence[View], size: Size) -> int:
        """Return the number of visual tokens that `views` of an image of `size` cost."""
        sizes = [view_size(view, size, self.low_ratio) for view in views]
        return sum(visual_tokens(view, self.limits) for view in sizes)

    def first_view(self, size: Size) -> View:
        """Return the environment's first view of an image of `size`.

        If `Budget.fit` is true and the first view leaves no room for a requested view, the first
        view shrinks to at most half of the budget's visual tokens.
        """
        view = self.environment.first_view(size)
        if self.budget is None or not self.budget.fit or self.environment.max_turns == 1:
            return view
        least = _VIEWS_LEFT * visual_tokens((1, 1), self.limits)
        if self.tokens([view], size) + least <= self.budget.visual_tokens:
            return view
        half = self.budget.visual_tokens // 2
        fitting = (one for one in _smaller([view]) if self.tokens(one, size) <= half)
        return next(fitting, (view,))[0]


def grant(
    spec: EpisodeSpec, request: Request, shown: Sequence[View], size: Size
) -> tuple[Request, tuple[View, ...]] | Malformed:
    """Return the request and its views, or Malformed if the budget does not allow the request.

    `shown` are the views of all turns so far. If `Budget.fit` is true, a request over the budget
    shrinks, and is Malformed only if no region fits.
    """
    views = spec.environment.views(request, size)
    budget = spec.budget
    if budget is None:
        return request, views
    crops = budget.crops - (len(shown) - 1)
    tokens = budget.visual_tokens - spec.tokens(shown, size)
    if len(views) <= crops and spec.tokens(views, size) <= tokens:
        return request, views
    if budget.fit and (fitted := _fit(spec, request, size, crops, tokens)):
        return fitted
    return Malformed(
        f"{len(views)} views with {spec.tokens(views, size)} visual tokens asked for, at most "
        f"{crops} views with {tokens} tokens are left"
    )


def _fit(
    spec: EpisodeSpec, request: Request, size: Size, crops: int, tokens: int
) -> tuple[Request, tuple[View, ...]] | None:
    """Return the request and its views, reduced to the budget, or None if no region fits.

    The function first shrinks all views in steps of 10 %. It drops regions only as a last resort,
    because a dropped region might hold the evidence.
    """
    for count in range(len(request.regions), 0, -1):
        kept = replace(request, regions=request.regions[:count])
        views = spec.environment.views(kept, size)
        if len(views) > crops:
            continue
        for shrunk in _smaller(views):
            if spec.tokens(shrunk, size) <= tokens:
                return kept, shrunk
    return None


def _smaller(views: Sequence[View]) -> Iterator[tuple[View, ...]]:
    """Yield the views unchanged, and then ever smaller. Each step shortens each side by 10 %."""
    for step in range(_STEPS):
        scale = _SHRINK**step
        yield tuple(replace(view, scale=view.scale * scale) for view in views)


def longest(spec: EpisodeSpec, question: str, size: Size, chat: ChatFormat) -> int:
    """Return the largest number of tokens that an episode about `question` can reach.

    Without a budget, the number leaves out the requested views and the messages that show them.
    """
    turns = spec.environment.max_turns
    text = len(chat.first_turn(question)) - 1
    visual = spec.tokens([spec.first_view(size)], size)
    if spec.budget is not None and turns > 1:
        visual = max(visual, spec.budget.visual_tokens)
        empty, one = len(chat.tool_reply(0)), len(chat.tool_reply(1))
        text += (turns - 1) * empty + spec.budget.crops * (one - empty - 1)
    return text + visual + turns * spec.sampling.max_tokens


def check_room(spec: EpisodeSpec, question: str, size: Size, chat: ChatFormat) -> None:
    """Raise TooLong if an episode about `question` can exceed the engine's context.

    Without a budget, the function checks nothing.
    """
    if spec.budget is None:
        return
    needed = longest(spec, question, size, chat)
    if needed > spec.budget.context:
        raise TooLong(
            f"question, views and sampled tokens may need {needed} tokens of "
            f"{spec.budget.context} (engine.max_model_len); shorten the question"
        )
