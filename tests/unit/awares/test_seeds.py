import subprocess
import sys

from awares.seeds import derive, shuffled

IDS = [f"mini/train/{number}" for number in range(50)]


def test_a_seed_is_the_same_in_every_process():
    """Pinned: a changed value would change every run's data without a word."""
    assert derive(0, "grpo", "mini/train/17", epoch=1, index=3) == 5021230663495720736
    code = "from awares.seeds import derive; print(derive(0, 'grpo', 'mini/train/17', epoch=1, index=3))"
    fresh = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(fresh.stdout) == derive(0, "grpo", "mini/train/17", epoch=1, index=3)


def test_every_part_matters_and_parts_do_not_run_together():
    uses = [
        (0, "grpo", "1", 2, 3),
        (1, "grpo", "1", 2, 3),
        (0, "sft", "1", 2, 3),
        (0, "grpo", "2", 2, 3),
        (0, "grpo", "1", 3, 3),
    ]
    uses += [
        (0, "grpo", "1", 2, 4),
        (0, "grpo", "12", 3, 3),
        (0, "grpo1", "", 2, 3),
        (0, "grpo", "1", 23, 0),
    ]
    seeds = [derive(*use) for use in uses]
    assert len(set(seeds)) == len(uses) and all(0 <= seed < 2**63 for seed in seeds)


def test_orders_depend_on_the_ids_the_job_and_the_epoch_only():
    order = shuffled(IDS, 0, "sft", epoch=1)
    assert sorted(order) == sorted(IDS) and order != sorted(IDS)
    assert shuffled(reversed(IDS), 0, "sft", epoch=1) == order
    assert shuffled(IDS, 0, "sft", epoch=2) != order and shuffled(IDS, 1, "sft", epoch=1) != order
