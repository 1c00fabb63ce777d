"""Fetches the images that requests name by their URLs, with the guard of `RemoteFiles`."""

from awares_platform.runtime.remote_files import FetchRefused, RemoteFiles
from awares_platform.serve.errors import RequestError


class RemoteImages(RemoteFiles):
    """A `RemoteFiles` whose errors are errors of the endpoint.

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
