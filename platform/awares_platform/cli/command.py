"""Defines the arguments that most commands share."""

from pathlib import Path
from typing import Annotated

import tyro

MINI = Path("mini")
_OVERRIDES = tyro.conf.arg(
    metavar="[SECTION.KEY=VALUE ...]", help="Settings that replace the file's."
)
Overrides = Annotated[tuple[str, ...], tyro.conf.Positional, _OVERRIDES]
Setup = Annotated[
    Path,
    tyro.conf.arg(
        metavar="FILE",
        help="A setup in TOML, a run's config.json, or a setup by name, such as mini or awares-7b.",
    ),
]
