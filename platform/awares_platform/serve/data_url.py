"""Decodes the images that requests send as data: URLs."""

from awares import data_url
from awares.data_url import is_data_url
from awares.errors import DataError
from awares_platform.serve.errors import RequestError

__all__ = ["decode_data_url", "is_data_url"]


def decode_data_url(url: str, param: str | None = None) -> bytes:
    """Decode an image in a base64 data: URL.

    Raises RequestError if the URL is invalid. `param` is the name of the field in this error.
    """
    try:
        return data_url.decode_data_url(url)
    except DataError as error:
        raise RequestError(f"image_url.url: {error}", param=param, code="invalid_image") from None
