"""Tests that the private server refuses an unusable data directory with a one-line message."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from awares_platform.store import seaweed
from awares_platform.store.errors import LaunchError


@pytest.mark.parametrize("place", ["/proc/nowhere/.store", "/dev/null/.store", "a\0b"])
def test_a_directory_that_cannot_be_written_is_named(place: str) -> None:
    with (
        pytest.raises(LaunchError, match="cannot be written .* set run.directory to a directory"),
        seaweed.serve(Path(place), "awares"),
    ):
        pass


def test_a_name_that_the_locale_cannot_spell_is_refused(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from awares_platform.store.errors import LaunchError\n"
        "from awares_platform.store import seaweed\n"
        "try:\n    seaweed.serve(Path('gr\\xf6\\xdfe'), 'awares').__enter__()\n"
        "except LaunchError as error:\n    print(ascii(str(error)))"
    )
    environment = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment, cwd=Path(__file__).parents[4], capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert "cannot be written ('ascii' codec can't encode" in done.stdout.replace("\\", "")
    assert done.returncode == 0
