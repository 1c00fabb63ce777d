"""The error that the endpoint returns to a client."""

from typing import Any

from awares.errors import DataError

MOST_CHARACTERS = 400
"""The largest number of characters of an error message. A longer message loses its middle."""
_MOST_PARAM = 120


class RequestError(DataError):
    """An error that the endpoint returns to the client.

    - `status` is the HTTP status.
    - `param` is the wrong field, or None.
    - `code` is a stable name of the error.
    - `retry_after_s` is the number of seconds to wait, or None.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        param: str | None = None,
        code: str = "invalid_request",
        retry_after_s: int | None = None,
    ):
        super().__init__(clipped(message))
        self.status, self.code, self.retry_after_s = status, code, retry_after_s
        self.param = None if param is None else clipped(param, _MOST_PARAM)

    def body(self) -> dict[str, Any]:
        """Return the response body in the error format that OpenAI clients parse."""
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        return {
            "error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}
        }


def clipped(text: str, most: int = MOST_CHARACTERS) -> str:
    """Return `text` without its middle if it is longer than `most` characters.

    Lone surrogates become question marks, because UTF-8 cannot encode them.
    """
    if len(text) > most:
        text = f"{text[: most * 2 // 3]} ... {text[-(most // 3) :]}"
    return text.encode("utf-8", "replace").decode()
