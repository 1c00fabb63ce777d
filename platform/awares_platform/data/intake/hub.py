"""Downloads a data set from the Hugging Face hub."""

from awares.errors import DataError

_SCHEME = "hf://"


def downloaded(source: str) -> str:
    """Download a source on the hub and return its local directory. Return other sources unchanged.

    A source on the hub is hf://owner/name or hf://owner/name/folder.

    Raises DataError if the hub lacks the data set or cannot be reached.
    """
    if not source.startswith(_SCHEME):
        return source
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    owner, _, rest = source.removeprefix(_SCHEME).partition("/")
    name, _, folder = rest.partition("/")
    wanted = f"{folder}/**" if folder else None
    try:
        top = snapshot_download(f"{owner}/{name}", repo_type="dataset", allow_patterns=wanted)
        return f"{top}/{folder}".rstrip("/")
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(
            f"{source} cannot be downloaded ({reason}); download it yourself, "
            "and name its directory"
        ) from error
