"""The budget of an episode: how much a policy may see, and how long its episode may become."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Budget:
    """The bounds of one episode.

    `visual_tokens` bounds the visual tokens of all views, including the first view. `crops` bounds
    the number of views that requests return. `context` is the longest sequence that the engine
    accepts, in tokens.

    If `fit` is false, a request over the budget is malformed. Serving sets `fit`, because a user
    wants an answer. Such a request then gets fewer regions or a lower resolution, and is malformed
    only if no region fits. A first view that leaves no room for a request is shrunk, too.

    Example:
        Budget(visual_tokens=4096, crops=4, context=8192)
    """

    visual_tokens: int
    crops: int
    context: int
    fit: bool = False


def budget_text(visual_tokens: int, crops: int) -> str:
    """Return the sentence that states the budget in a policy's prompt."""
    return (
        f"You can see at most {crops} regions and at most {visual_tokens} visual tokens in all, "
        "the small version included."
    )
