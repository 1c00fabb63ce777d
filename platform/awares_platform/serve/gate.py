"""Decides who may send a request, and writes one line of the access log for each chat request.

    request -- Keyring: which key? -- Counts: within its limits? -- answer -- Counts: spend
                                                                          +-- access log

A log line holds no image, no text of a client and no key.
"""

import logging
from collections.abc import Sequence

from starlette.requests import Request

from awares_platform.serve.allowance import Counts, refused
from awares_platform.serve.croploop import ServedAnswer
from awares_platform.serve.keys import ApiKey, Keyring

# A child of Serve's own logger, so that the lines go to the log file of the replica.
access = logging.getLogger("ray.serve.awares_access")
OPEN = "-"
"""The key's name in the access log if the endpoint needs no key, or if the key is unknown."""


class Gate:
    """Admits requests by their API key. Without `counts`, keys have no limits.

    Example:
        caller = await Gate(Keyring(token="secret")).enter(request)
    """

    def __init__(self, keyring: Keyring, counts: Counts | None = None) -> None:
        self._keyring, self._counts = keyring, counts

    def caller(self, request: Request) -> ApiKey | None:
        """Return the API key of the request, or None if the endpoint needs no key.

        Raises RequestError (401) if the request has no known key.
        """
        return self._keyring.caller(request.headers.get("authorization", ""))

    async def enter(self, request: Request) -> ApiKey | None:
        """Return the API key of the request, as `caller` does, and count the request.

        Raises RequestError (401) if the request has no known key. Raises RequestError (429) if the
        key is over one of its limits.
        """
        key = self.caller(request)
        if key is not None and self._counts is not None:
            refusal = await self._counts.admit(key)
            if refusal is not None:
                raise refused(refusal)
        return key

    async def spend(self, key: ApiKey | None, answers: Sequence[ServedAnswer]) -> None:
        """Add the visual tokens of the answers to the count of the key."""
        if key is not None and self._counts is not None:
            await self._counts.spend(key, sum(answer.visual_tokens for answer in answers))


def log_access(
    key: ApiKey | None, status: int, code: str, seconds: float, answers: Sequence[ServedAnswer] = ()
) -> None:
    """Write one line of the access log.

    `status` is the HTTP status. `code` is the error code, or "ok". `seconds` is the time that the
    replica has spent on the request.
    """
    fields: dict[str, str | int | float] = {
        "key_name": key.name if key else OPEN,
        "status": status,
        "code": code,
        "seconds": round(seconds, 4),
        "choices": len(answers),
        "visual_tokens": sum(answer.visual_tokens for answer in answers),
        "full_tokens": sum(answer.full_tokens for answer in answers),
    }
    access.info("chat %s", " ".join(f"{k}={v}" for k, v in fields.items()), extra=fields)
