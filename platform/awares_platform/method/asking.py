"""Asks a language model for a reply in a given form, and asks again if the reply does not parse.

The second question quotes the reply and its fault.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from awares_platform.method.chat_client import ChatEndpoint
from awares_platform.method.spoken import Unreadable

Read = TypeVar("Read")
_Turn = Mapping[str, Any]

_REPEATED = 500


async def ask(
    endpoint: ChatEndpoint,
    messages: Sequence[_Turn],
    read: Callable[[str | None], Read],
    schema: Mapping[str, Any],
) -> Read:
    """Return the value that `read` parses from the reply to `messages`.

    If `read` raises Unreadable, the question is asked once more.

    Raises Unreadable after a second failure or a refusal.
    Raises EndpointError if the endpoint cannot be used.
    """
    try:
        reply = await endpoint.complete(messages, schema)
    except Unreadable:
        endpoint.doubt(messages, schema)
        raise
    try:
        return read(reply)
    except Unreadable as error:
        again = [*messages, *_again(reply, error)]
    try:
        return read(await endpoint.complete(again, schema))
    except Unreadable:
        endpoint.doubt(messages, schema)
        endpoint.doubt(again, schema)
        raise


def _again(reply: str | None, error: Unreadable) -> list[_Turn]:
    said = (reply or "").strip()[:_REPEATED] or "(no reply)"
    wish = "Reply again, only in the form that was asked for."
    return [
        {"role": "assistant", "content": said},
        {"role": "user", "content": f"This reply cannot be used: {error}. {wish}"},
    ]
