"""Measures how long a GRPO run takes to resume from its journal, and how much memory it needs.

    PYTHONPATH=.:platform python tests/benchmarks/resume.py [--steps 6250]

Only the listing of the journal's files may take more time and memory when there are more steps.
"""

import argparse
import asyncio
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from awares.episode import Episode, StopReason, Turn
from awares.reward import RewardValue
from awares.sample import Label, Sample
from awares.view import View
from awares_platform.config.store import StoreConfig
from awares_platform.grpo.group import Group, Member, Outcome, Position, Prompt
from awares_platform.grpo.journal import Journal
from awares_platform.grpo.lineage import Lineage
from awares_platform.grpo.recorder import Recorder
from awares_platform.grpo.segment import Training
from awares_platform.store import ObjectStore
from tests.benchmarks.local_store import local_store

START, RUN = "9c0e", "resume"
GROUPS, EPISODES, CHECKPOINT_EVERY, BOUND = 8, 8, 10, 2
CONTEXTS, SAMPLED = (1_200, 400), (20, 60)


def main() -> None:
    """Write the journal, then measure a resume in a new process."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=6_250)
    parser.add_argument("--store", help="the settings of the store, if the journal is there")
    arguments = parser.parse_args()
    if arguments.store:
        resume(ObjectStore(StoreConfig.model_validate_json(arguments.store)), arguments.steps)
        return
    with tempfile.TemporaryDirectory() as scratch, local_store(Path(scratch)) as store:
        started = time.monotonic()
        write(store, arguments.steps)
        size = sum(info.size for info in store.list(f"runs/{RUN}/"))
        print(
            f"wrote {arguments.steps:,} segments, {size / 2**20:,.0f} MiB, "
            f"in {time.monotonic() - started:.0f} s",
            flush=True,
        )
        command = [sys.executable, __file__, "--steps", str(arguments.steps), "--store"]
        subprocess.run([*command, store.config.model_dump_json()], check=True)


def write(store: ObjectStore, steps: int) -> None:
    """Write one journal file for each of `steps` steps. Step n publishes version n + 1."""
    journal, chance = Journal(store, RUN, START), random.Random(0)
    journal.root = 1
    members = [_member(chance) for _ in range(GROUPS * EPISODES)]
    for step in range(steps):
        groups = [_group(step * GROUPS + index, step, members) for index in range(GROUPS)]
        pairs = tuple((group.prompt.number, 0) for group in groups)
        journal.append(groups, Training(step, step + 1, pairs, (step + 1) * GROUPS))


def resume(store: ObjectStore, steps: int) -> None:
    """Read the journal as a controller does, and print the time and the memory."""
    store.check()
    saved = (steps - 1) // CHECKPOINT_EVERY * CHECKPOINT_EVERY
    recorder = Recorder(Journal(store, RUN, START))
    lineage = Lineage(((1, saved + 1),), first=steps + 1)
    before, started = _memory("VmRSS"), time.monotonic()
    _, found = asyncio.run(recorder.read(Position(saved * GROUPS), lineage, BOUND))
    seconds, peak = time.monotonic() - started, _memory("VmHWM")
    print(f"{'steps':>7}{'groups':>8}{'stale':>7}{'seconds':>9}{'MiB':>6}{'process, MiB':>14}")
    numbers = f"{steps:>7,}{len(found.groups):>8}{len(found.stale):>7}"
    print(f"{numbers}{seconds:>9.2f}{peak - before:>6.0f}{peak:>14.0f}")


def _memory(name: str) -> float:
    """Return a memory size of this process in MiB: VmRSS is the present size, VmHWM the peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) / 2**10


def _group(number: int, step: int, members: list[Member]) -> Group:
    """Return a group for step `step`. Version `step` sampled its tokens (version 1 for step 0)."""
    first = number % GROUPS * EPISODES
    chosen = tuple(_at(member, max(1, step)) for member in members[first : first + EPISODES])
    prompt = Prompt(number, 0, Sample("s", "ab" * 32, "digit?", "7", label=Label.HR))
    return Group(prompt, chosen, Outcome.READY, 2.5)


def _at(member: Member, version: int) -> Member:
    episode = member.episode
    turns = tuple(_turn(turn.context_ids, turn.sampled_ids, version) for turn in episode.turns)
    return Member(_episode(turns), member.reward, member.correct, member.advantage)


def _member(chance: random.Random) -> Member:
    def ids(count: int) -> tuple[int, ...]:
        return tuple(chance.randrange(150_000) for _ in range(count))

    pairs = zip(CONTEXTS, SAMPLED, strict=True)
    turns = tuple(_turn(ids(context), ids(sampled), 1) for context, sampled in pairs)
    return Member(_episode(turns), RewardValue(9.7, {"answer": 10.0, "cost": 0.3}), True, 0.5)


def _turn(context: tuple[int, ...], sampled: tuple[int, ...], version: int) -> Turn:
    return Turn(
        context_ids=context,
        views=(View(None),),
        sampled_ids=sampled,
        logprobs=tuple(-1.0 / (1 + token % 97) for token in sampled),
        versions=(version,) * len(sampled),
        text="the answer",
        crops=(),
        stop=StopReason.ANSWER,
    )


def _episode(turns: tuple[Turn, ...]) -> Episode:
    return Episode(
        sample_id="s",
        image="ab" * 32,
        image_size=(1_700, 2_200),
        turns=turns,
        answer="7",
        stop=StopReason.ANSWER,
        visual_tokens=1_000,
        rtr_token=0.5,
        rtr_pixel=0.5,
    )


if __name__ == "__main__":
    main()
