"""Prepares the data for matrix.py, and checks a finished run: journal, messages and reward."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from awares.sample import Label
from awares_platform.config import PlatformConfig
from awares_platform.data.dataset import ensure_mini, read_samples, write_samples
from awares_platform.grpo.group import Outcome
from awares_platform.grpo.job import journal_of
from awares_platform.runtime import metrics
from awares_platform.runtime.processor import resolved
from awares_platform.runtime.session import TERMINATED
from awares_platform.store import ObjectStore

WRONG = re.compile(r"another grpo job|StoreError|AssertionError")
"""Matches a line that blames the wrong cause."""
_PATH = re.compile(r"(?<![\w:/.-])/(?:[\w.~-]+/)+([\w.~-]*)")
"""Matches an absolute path of a file. The address of an object in a store does not match."""
_KNOWN = re.compile(r"/(?:site-packages/|(?=(?:platform|tests)/))")
"""Splits a path. The part after a match is the same on every machine."""
OURS = re.compile(r"grpo \[ *\d+ s\]: |[IWE] [\d:]{8} awares|awares grpo: |grpo: |policy: |next: ")
"""Matches the beginning of a log line of this project. All other lines count as foreign."""


@dataclass(frozen=True, slots=True)
class Struck:
    """What a fault did to the job.

    Example:
        Struck("kill -9 of the engine", 12, 120, 0.4, 31.0, "rollout actor 0 is gone", "")
    """

    name: str
    version: int
    """The newest version at the moment of the strike."""
    limit_s: float
    gone_s: float | None
    """The seconds until the struck process ended, or None for a fault of a node, store or disk."""
    step_s: float
    """The seconds until the job has named the fault and published two further versions.

    The time starts `MatrixFault.seconds` after the strike.
    """
    told: str
    """The line by which the job named the fault, or ""."""
    failed: str
    """Why the job did not recover in time, or ""."""


def prepare(config: PlatformConfig, store: ObjectStore) -> None:
    """Write the curated data set. Every fourth sample has the label HR."""
    ensure_mini(config.data, store)
    samples = read_samples(store, config.data.name, "train")
    labelled = [
        replace(sample, label=Label.LR if index % 4 else Label.HR)
        for index, sample in enumerate(samples)
    ]
    write_samples(store, config.data.curated, "train", labelled)


def telling(pattern: str, said: Sequence[str]) -> str:
    """Find the first line that matches `pattern`. Return it from the match to its end, or ""."""
    return next((found[0] for line in said if (found := re.search(f"{pattern}.*", line))), "")


def portable(text: str) -> str:
    """Return the text without the directories of this machine, because results are committed.

    Example:
        portable("see /home/me/runs/engine.log")  # "see .../engine.log"
    """

    def shorten(found: re.Match[str]) -> str:
        known = _KNOWN.split(found[0], maxsplit=1)
        return known[1] if len(known) > 1 else f".../{found[1]}"

    return _PATH.sub(shorten, text)


def check(
    config: PlatformConfig, store: ObjectStore, said: Sequence[str], status: int | None
) -> dict[str, str]:
    """Return, for the name of each check, what is wrong, or "" if the check passes.

    `status` is the job's exit status after SIGTERM, or None if the job did not end in time.
    """
    session = config.model_copy(
        update={
            "store": config.store.model_copy(update={"endpoint": store.config.endpoint}),
            "engine": resolved(config.engine),
        }
    )
    foreign = [line for line in said if not OURS.match(line)]
    return {
        **_journal(session, store),
        "messages": "; ".join(filter(WRONG.search, said)),
        "foreign lines": "; ".join(foreign),
        "exit": "" if status == TERMINATED else f"status {status}",
    }


def _journal(config: PlatformConfig, store: ObjectStore) -> dict[str, str]:
    """Check the journal, and return a map like the map that `check` returns.

    The newest step may lack a record, but every earlier step must have one.
    """
    size, journal = config.grpo.groups_per_step, journal_of(config, store)
    trainings = journal.trainings()
    numbers = Counter(number for one in trainings.values() for number, _ in one.groups)
    trainable = (Outcome.READY, Outcome.UNFINISHED)
    useless = {
        group.prompt.number for group in journal.read().groups if group.outcome not in trainable
    }
    last = max((one.watermark for one in trainings.values()), default=0)
    missing = [step for step in range(max(trainings, default=0)) if step not in trainings]
    short = [step for step, one in trainings.items() if len(one.groups) != size]
    twice = [number for number, count in numbers.items() if count > 1]
    lost = [number for number in range(last) if number not in numbers and number not in useless]
    return {
        "steps": f"no record of steps {missing}" if missing else "",
        "batches": f"steps {short} have another batch size" if short else "",
        "trained twice": f"prompts {twice}" if twice else "",
        "lost": f"prompts {lost}" if lost else "",
    }


def rewards(config: PlatformConfig) -> list[float]:
    """Return the mean reward of each step."""
    rows = metrics.read(config.run.directory / config.run.name / "grpo" / "metrics.jsonl")
    return [row.values["reward/mean"] or 0.0 for row in rows if "reward/mean" in row.values]
