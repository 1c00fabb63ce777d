"""The Ray job of `awares curate`.

Submit it with `ray job submit --working-dir . -- python jobs/curate.py ...`.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Import awares and awares_platform from this clone, even if they are installed as well.
sys.path[:1] = [str(ROOT), str(ROOT / "platform")]

if __name__ == "__main__":
    from awares_platform.cli import main as cli

    cli.job(cli.curate)
