"""Fetches images by their URLs. `RemoteFiles` refuses unlisted hosts and private addresses."""

from awares_platform.runtime.remote_files import FetchRefused, RemoteFiles
from awares_platform.serve.errors import RequestError


class RemoteImages(RemoteFiles):
    """A `RemoteFiles` that raises RequestError, which the endpoint can return to the client.

    Example:
        RemoteImages(hosts=("images.example.com",), max_bytes=2**24, timeout_s=5.0)
    """

    __slots__ = ()

    async def fetch(self, url: str) -> bytes:
        """Fetch the content of `url`.

        Raises RequestError if the URL is refused or the fetch fails. The error states the reason.
        """
        try:
            return await super().fetch(url)
        except FetchRefused as error:
            raise RequestError(str(error), param="messages", code=error.code) from None
