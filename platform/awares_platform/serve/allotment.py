"""Chooses views so that they fit the budget of visual tokens.

A view is an image, or a region of an image, at a certain resolution. Views become smaller until
they fit. If even the smallest views do not fit, `allot` drops requested regions.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from awares.environment import Request
from awares.episode_spec import EpisodeSpec
from awares.errors import TooLong
from awares.tokens import Size, visual_tokens
from awares.view import View, full_view, view_size

_SHRINK = 0.9
_STEPS = 80


@dataclass(frozen=True, slots=True)
class ShownView:
    """One view that the policy saw.

    Example:
        ShownView(0, View((0, 0, 56, 56)), "0", tokens=4)
    """

    image: int
    """Index of the image in the HTTP request, from 0."""
    view: View
    region: str | None
    """Name of the requested region, or None for a first view."""
    tokens: int
    """Number of visual tokens."""


def first_views(
    spec: EpisodeSpec, sizes: Sequence[Size], tokens: int, *, full: bool
) -> tuple[ShownView, ...]:
    """Return one view per image with at most `tokens` visual tokens in all.

    If `full` is true, these are whole images in their own resolution. Otherwise they are the views
    that the environment shows first. All views shrink until they fit.

    Raises TooLong if even the smallest views do not fit.
    """
    views = [full_view(size) if full else spec.environment.first_view(size) for size in sizes]
    found = _shrunk(spec, [(index, None, view) for index, view in enumerate(views)], sizes, tokens)
    if found is None:
        raise TooLong(
            f"the text leaves room for {max(tokens, 0)} visual tokens, too few for the smallest "
            f"views of {len(sizes)} image(s); shorten the question, or send fewer images"
        )
    return found


def allot(
    spec: EpisodeSpec, request: Request, sizes: Sequence[Size], crops: int, tokens: int
) -> tuple[ShownView, ...]:
    """Return the views of the requested regions on each image. Return () if no region fits.

    At most `crops` views are returned, with at most `tokens` visual tokens in all. Views shrink to
    fit. If that is not enough, the last regions are dropped.
    """
    for count in range(len(request.regions), 0, -1):
        kept = replace(request, regions=request.regions[:count])
        views = [
            (index, region, view)
            for index, size in enumerate(sizes)
            for region, view in _named(kept, spec.environment.views(kept, size))
        ]
        if len(views) <= crops and (found := _shrunk(spec, views, sizes, tokens)):
            return found
    return ()


def _named(request: Request, views: Sequence[View]) -> list[tuple[str, View]]:
    """Return each view with its region's name, or with all names if one view shows all regions."""
    if len(views) == len(request.regions):
        return list(zip(request.regions, views, strict=True))
    return [(", ".join(request.regions), view) for view in views]


def _shrunk(
    spec: EpisodeSpec,
    views: Sequence[tuple[int, str | None, View]],
    sizes: Sequence[Size],
    tokens: int,
) -> tuple[ShownView, ...] | None:
    """Shrink all views by the same factor until they fit. Return None if no factor fits."""
    for step in range(_STEPS):
        scale = _SHRINK**step
        shown = [
            _shown(spec, index, region, replace(view, scale=view.scale * scale), sizes[index])
            for index, region, view in views
        ]
        if sum(one.tokens for one in shown) <= tokens:
            return tuple(shown)
    return None


def _shown(spec: EpisodeSpec, index: int, region: str | None, view: View, size: Size) -> ShownView:
    count = visual_tokens(view_size(view, size, spec.low_ratio), spec.limits)
    return ShownView(index, view, region, count)
