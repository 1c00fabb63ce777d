"""Tests how the table that `awares evaluate` prints is fitted to narrow terminals."""

import pytest

from awares_platform.cli.terminal_table import fit

WIDE = """\
| policy                      | accuracy | 95 % interval  | RTR (tokens) | reward | p95    |
| --------------------------- | -------: | -------------: | -----------: | -----: | -----: |
| escalate to the whole image | 95.0%    | 94.1% to 96.0% | 0.642        | 9.77   | 103 ms |

2,048 held-out questions"""


def test_a_table_that_fits_stays_whole() -> None:
    assert fit(WIDE, 92) == WIDE
    assert fit("no table", 4) == "no table"


def test_the_least_important_columns_are_left_out_first() -> None:
    assert fit(WIDE, 91).splitlines()[2] == (
        "| escalate to the whole image | 95.0%    | 94.1% to 96.0% | 0.642        | 9.77   |"
    )
    assert fit(WIDE, 60).splitlines() == [
        "| policy                      | accuracy | RTR (tokens) |",
        "| --------------------------- | -------: | -----------: |",
        "| escalate to the whole image | 95.0%    | 0.642        |",
        "",
        "2,048 held-out questions",
    ]


@pytest.mark.parametrize("width", [20, 60, 75, 80, 88])
def test_policy_accuracy_and_tokens_always_stay(width: int) -> None:
    head = fit(WIDE, width).splitlines()[0]
    assert all(name in head for name in ("policy", "accuracy", "RTR (tokens)"))
