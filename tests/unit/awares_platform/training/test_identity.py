"""Tests that a change of any byte changes the digest of a policy, and tests the digest cache."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from awares.errors import PolicyError
from awares.mini import POLICY
from awares_platform.training import identity
from awares_platform.training.identity import cache_directory, content_digest, file_digest


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the directory of an empty digest cache."""
    monkeypatch.setenv("AWARES_CACHE", str(tmp_path / "cache"))
    # Cache the digests of new files too. Normally, a file must be more than 2 seconds old.
    monkeypatch.setattr(identity, "_SETTLED_NS", -1)
    return tmp_path / "cache" / "digests"


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(POLICY, tmp_path / "policy"))


def flip(path: Path, place: int) -> None:
    """Flip one bit of the byte at `place`, but keep the size, inode and name of the file."""
    with path.open("r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 1]))


def test_flipping_any_byte_of_any_file_changes_the_digest(cache: Path, policy: Path) -> None:
    first = content_digest(policy)
    files = [path for path in sorted(policy.iterdir()) if path.is_file()]
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {file.name for file in files}
    for file in files:
        size = file.stat().st_size
        for place in {0, size // 3, size // 2, size - 1}:
            flip(file, place)
            assert content_digest(policy) != first, f"{file.name} at byte {place}"
            flip(file, place)
            assert content_digest(policy) == first


def test_the_names_of_the_files_are_part_of_the_content(cache: Path, policy: Path) -> None:
    first = content_digest(policy)
    (policy / "tokenizer.json").rename(policy / "tokens.json")
    renamed = content_digest(policy)
    (policy / "tokens.json").unlink()
    assert len({first, renamed, content_digest(policy)}) == 3


def test_equal_content_in_another_directory_has_the_same_digest(
    cache: Path, policy: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(policy, tmp_path / "copy")
    (copy / "manifest.json").write_text("{}")
    assert content_digest(copy) == content_digest(policy)


def test_an_unchanged_file_is_read_once(cache: Path, tmp_path: Path) -> None:
    file = tmp_path / "weights"
    file.write_bytes(b"0123")
    file_digest(file)
    [entry] = cache.iterdir()
    marked = json.loads(entry.read_text()) | {"digest": "f" * 64}
    entry.write_text(json.dumps(marked))
    assert file_digest(file) == "f" * 64


def test_a_file_rewritten_in_place_with_the_same_size_and_mtime_is_noticed(
    cache: Path, tmp_path: Path
) -> None:
    file = tmp_path / "weights"
    file.write_bytes(b"0123")
    before, status = file_digest(file), file.stat()
    flip(file, 2)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    after = file.stat()
    assert (after.st_size, after.st_mtime_ns, after.st_ino) == (
        4,
        status.st_mtime_ns,
        status.st_ino,
    )
    assert file_digest(file) != before


def test_a_file_that_was_just_written_is_not_cached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two writes in the same tick of the clock give a file the same time stamps.

    The digest must change nevertheless.
    """
    monkeypatch.setenv("AWARES_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "weights"
    file.write_bytes(b"0123")
    frozen = identity._stamp(file)
    monkeypatch.setattr(identity, "_stamp", lambda path: frozen)
    before = file_digest(file)
    flip(file, 2)
    assert file_digest(file) != before


@pytest.mark.parametrize("damaged", [b"", b"[]", b'{"stamp": 1}', b'{"stamp": {}, "digest": "ab"}'])
def test_a_damaged_entry_is_replaced(cache: Path, tmp_path: Path, damaged: bytes) -> None:
    file = tmp_path / "weights"
    file.write_bytes(b"0123")
    digest = file_digest(file)
    [entry] = cache.iterdir()
    entry.write_bytes(damaged)
    assert file_digest(file) == digest == json.loads(entry.read_text())["digest"]


def test_a_cache_that_cannot_be_written_costs_time_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cache").write_text("a file where the directory should be")
    monkeypatch.setenv("AWARES_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(identity, "_SETTLED_NS", -1)
    (tmp_path / "weights").write_bytes(b"0123")
    assert file_digest(tmp_path / "weights") == file_digest(tmp_path / "weights")


def test_processes_share_the_cache(cache: Path, policy: Path) -> None:
    """Check the digests of two processes that use the same cache at the same time.

    Each process deletes all cache entries and hashes the files again, 20 times.
    """
    code = (
        "import sys; from pathlib import Path; from awares_platform.training import identity\n"
        "identity._SETTLED_NS = -1\n"
        "def again():\n"
        "    for entry in (identity.cache_directory() / 'digests').glob('*.json'):\n"
        "        entry.unlink(missing_ok=True)\n"
        "    return identity.content_digest(Path(sys.argv[1]))\n"
        "print(*{again() for _ in range(20)})"
    )
    command = [sys.executable, "-c", code, str(policy)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate()[0].split() for process in both]
    assert said == [[content_digest(policy)]] * 2
    assert len(list(cache.iterdir())) == sum(path.is_file() for path in policy.iterdir())


@pytest.fixture
def homeless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Set a home directory that cannot be written.

    Return the directory that the cache then uses instead.
    """
    monkeypatch.delenv("AWARES_CACHE", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("HOME", "/proc/nowhere")
    return tmp_path / f"awares-cache-{os.getuid()}"


def test_the_cache_is_in_the_home_directory(
    homeless: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_directory() == tmp_path / "home" / ".cache" / "awares"
    assert not homeless.exists()


@pytest.mark.parametrize("home", ["/proc/nowhere", "/dev/null", "/dev/null/home", "/sys"])
def test_a_home_that_cannot_be_written_is_replaced(
    homeless: Path, monkeypatch: pytest.MonkeyPatch, home: str
) -> None:
    monkeypatch.setenv("HOME", home)
    assert cache_directory() == homeless
    assert homeless.stat().st_mode & 0o777 == 0o700
    assert cache_directory() == homeless


def test_a_cache_that_others_can_write_is_refused(homeless: Path) -> None:
    homeless.mkdir()
    homeless.chmod(0o777)
    with pytest.raises(PolicyError, match="can be written by others: set AWARES_CACHE"):
        cache_directory()
    homeless.rmdir()
    homeless.symlink_to("/root")
    with pytest.raises(PolicyError, match="set AWARES_CACHE"):
        cache_directory()
