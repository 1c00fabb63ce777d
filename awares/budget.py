"""The budget of an episode: how much a policy may see, and how long its episode may become."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Budget:
    """The limits of one episode.

    Example:
        Budget(visual_tokens=4096, crops=4, context=8192)
    """

    visual_tokens: int
    """The largest number of visual tokens of all views, including the first view."""
    crops: int
    """The largest number of views that requests return."""
    context: int
    """The longest sequence that the engine accepts, in tokens."""
    fit: bool = False
    """Whether a request over the budget gets fewer regions or a lower resolution.

    If false, such a request is malformed. Serving sets `fit`, because a user wants an answer.
    """


def budget_text(visual_tokens: int, crops: int) -> str:
    """Return the sentence that states the budget in a policy's prompt."""
    return (
        f"You can see at most {crops} regions and at most {visual_tokens} visual tokens in all, "
        "the small version included."
    )
