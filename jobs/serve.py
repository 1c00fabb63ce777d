"""Ray job: the same as `awares serve`. Submit it with `ray job submit --working-dir . -- python jobs/serve.py ...`."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:1] = [
    str(ROOT),
    str(ROOT / "platform"),
]  # an uploaded clone must win over an installed one, for both packages

if __name__ == "__main__":
    from awares_platform.cli import main as cli

    cli.job(cli.serve)
