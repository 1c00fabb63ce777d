"""Tests `awares keys`: adding, rotating, listing and removing keys."""

from pathlib import Path

import pytest

from awares.errors import ConfigError
from awares_platform.cli import keys
from awares_platform.serve.keys import Keyring, KeysFile


def add(path: Path, name: str, capsys: pytest.CaptureFixture[str], **limits: int) -> str:
    """Run `awares keys add`, and return the new key that it prints."""
    chosen = {"requests_per_minute": None, "visual_tokens_per_day": None, **limits}
    keys.run("add", path, name, **chosen)
    return capsys.readouterr().out.strip()


def test_the_printed_key_opens_and_its_file_does_not_hold_it(tmp_path, capsys) -> None:
    path = tmp_path / "keys.json"
    key = add(path, "team-a", capsys, requests_per_minute=600)
    assert key.startswith("aw-") and key not in path.read_text()
    caller = Keyring(path=path).caller(f"Bearer {key}")
    assert caller is not None and caller.limits == (600, None)


def test_a_key_is_rotated_and_keeps_its_limits(tmp_path, capsys) -> None:
    path = tmp_path / "keys.json"
    old = add(path, "team-a", capsys, requests_per_minute=600)
    new = add(path, "team-a", capsys)
    ring = Keyring(path=path)
    callers = [ring.caller(f"Bearer {key}") for key in (old, new)]
    assert [caller and caller.limits for caller in callers] == [(600, None)] * 2
    keys.run("remove", path, "team-a", None, None)
    assert KeysFile.read(path).keys == (callers[1],)
    add(path, "team-a", capsys, visual_tokens_per_day=5000)
    assert {entry.limits for entry in KeysFile.read(path).keys} == {(None, 5000)}


def test_the_list_shows_limits_and_no_whole_hash(tmp_path, capsys) -> None:
    path = tmp_path / "keys.json"
    add(path, "team-a", capsys, visual_tokens_per_day=5_000_000)
    keys.run("ls", path, "", None, None)
    listed = capsys.readouterr().out
    assert "team-a" in listed and "5,000,000 visual tokens a day" in listed
    assert KeysFile.read(path).keys[0].sha256 not in listed


@pytest.mark.parametrize(
    ("action", "name", "limit", "message"),
    [
        ("add", "", None, "name the owner of the key: awares keys add"),
        ("add", "team a", None, "name: String should match pattern"),
        ("add", "team-b", 0, "requests_per_minute: Input should be greater than or equal to 1"),
        ("remove", "team-b", None, "has no key of 'team-b'; its names: team-a"),
    ],
)
def test_a_wrong_call_changes_nothing(tmp_path, capsys, action, name, limit, message) -> None:
    path = tmp_path / "keys.json"
    add(path, "team-a", capsys)
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=message):
        keys.run(action, path, name, limit, None)
    assert path.read_bytes() == before


def test_a_missing_file_is_an_error_of_ls(tmp_path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        keys.run("ls", tmp_path / "absent.json", "", None, None)
