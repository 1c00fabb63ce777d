"""Makes turns for tests that read only the text and the request of a turn."""

from awares.episode import StopReason, Turn


def spoken_turn(
    text: str = "",
    crops: tuple[str, ...] = (),
    stop: StopReason | None = StopReason.ANSWER,
    area: float = 0.0,
) -> Turn:
    """Return a turn without token ids and views."""
    return Turn(
        context_ids=(),
        views=(),
        sampled_ids=(),
        logprobs=(),
        versions=(),
        text=text,
        crops=crops,
        stop=stop,
        area=area,
    )
