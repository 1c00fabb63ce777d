"""Tests the seeds of random draws, and the order of samples in an epoch."""

import subprocess
import sys

from awares.seeds import derive, shuffled

IDS = [f"mini/train/{number}" for number in range(50)]


def test_a_seed_is_the_same_in_every_process():
    """Check one seed against a constant, and against the seed in another process.

    If `derive` returned other seeds, every run would silently draw other data.
    """
    assert derive(0, "grpo", "mini/train/17", epoch=1, index=3) == 5021230663495720736
    call = "derive(0, 'grpo', 'mini/train/17', epoch=1, index=3)"
    code = f"from awares.seeds import derive; print({call})"
    fresh = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(fresh.stdout) == derive(0, "grpo", "mini/train/17", epoch=1, index=3)


def test_every_part_changes_the_seed_and_two_parts_never_merge():
    uses = [
        (0, "grpo", "1", 2, 3),
        (1, "grpo", "1", 2, 3),
        (0, "sft", "1", 2, 3),
        (0, "grpo", "2", 2, 3),
        (0, "grpo", "1", 3, 3),
        (0, "grpo", "1", 2, 4),
        (0, "grpo", "12", 3, 3),
        (0, "grpo1", "", 2, 3),
        (0, "grpo", "1", 23, 0),
    ]
    seeds = [derive(*use) for use in uses]
    assert len(set(seeds)) == len(uses) and all(0 <= seed < 2**63 for seed in seeds)


def test_an_order_depends_on_the_set_of_ids_and_not_on_their_order():
    order = shuffled(IDS, 0, "sft", epoch=1)
    assert sorted(order) == sorted(IDS) and order != sorted(IDS)
    assert shuffled(reversed(IDS), 0, "sft", epoch=1) == order
    assert shuffled(IDS, 0, "sft", epoch=2) != order and shuffled(IDS, 1, "sft", epoch=1) != order
