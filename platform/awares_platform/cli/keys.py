"""Implements `awares keys add|remove|ls`, which writes and reads the endpoint's keys file."""

from pathlib import Path

from pydantic import ValidationError

from awares.errors import ConfigError
from awares_platform.serve.keys import ApiKey, KeysFile, hashed, new_key, refused_field

_SHOWN = 12


def run(
    action: str,
    path: Path,
    name: str,
    requests_per_minute: int | None,
    visual_tokens_per_day: int | None,
) -> None:
    """Run one action. Raises ConfigError for an unusable file, name or limit."""
    before = KeysFile.read(path) if action != "add" or path.exists() else KeysFile(keys=())
    if action == "ls":
        print(listed(before))
        return
    if not name:
        raise ConfigError(f"name the owner of the key: awares keys {action} {path} NAME")
    if action == "add":
        key = new_key()
        added(before, key, name, requests_per_minute, visual_tokens_per_day).write(path)
        print(key)
        return
    removed(before, name, path).write(path)


def added(
    before: KeysFile,
    key: str,
    name: str,
    requests_per_minute: int | None,
    visual_tokens_per_day: int | None,
) -> KeysFile:
    """Return the keys with a new entry for `key`.

    All entries of one name have the same limits. If any limit is given, the given limits replace
    those of all entries of `name`. Otherwise, the new entry copies the limits of the old ones.
    """
    given = {
        "requests_per_minute": requests_per_minute,
        "visual_tokens_per_day": visual_tokens_per_day,
    }
    same = [entry for entry in before.keys if entry.name == name]
    if same and given == dict.fromkeys(given):
        given = {limit: getattr(same[0], limit) for limit in given}
    try:
        new = ApiKey(name=name, sha256=hashed(key), **given)
    except ValidationError as error:
        raise ConfigError(refused_field(error)) from None
    kept = [
        entry.model_copy(update=given) if entry.name == name else entry for entry in before.keys
    ]
    return KeysFile(keys=(*kept, new))


def removed(before: KeysFile, name: str, path: Path) -> KeysFile:
    """Return the keys without the oldest entry of `name`.

    To rotate a key, add the new key first. Remove the old key once no client uses it. Raises
    ConfigError if there is no entry of `name`.
    """
    places = [place for place, entry in enumerate(before.keys) if entry.name == name]
    if not places:
        names = ", ".join(sorted({entry.name for entry in before.keys})) or "none"
        raise ConfigError(f"{path} has no key of {name!r}; its names: {names}")
    return KeysFile(
        keys=tuple(entry for place, entry in enumerate(before.keys) if place != places[0])
    )


def listed(file: KeysFile) -> str:
    """Return one line for each entry: name, first digits of the hash, and limits."""
    return "\n".join(
        f"{entry.name}  sha256 {entry.sha256[:_SHOWN]}...  "
        f"{_limit(entry.requests_per_minute)} requests a minute  "
        f"{_limit(entry.visual_tokens_per_day)} visual tokens a day"
        for entry in file.keys
    )


def _limit(number: int | None) -> str:
    return "any" if number is None else f"{number:,}"
