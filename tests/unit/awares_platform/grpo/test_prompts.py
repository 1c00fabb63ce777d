import logging
from dataclasses import replace

import pytest

from awares.errors import DataError
from awares.sample import Sample
from awares_platform.grpo.prompts import Prompts, labelled


def test_every_epoch_holds_every_sample_once_in_another_order(samples: list[Sample]) -> None:
    prompts = Prompts(samples, seed=3)
    epochs = [
        [prompts[number].sample.sample_id for number in range(start, start + 5)] for start in (0, 5)
    ]
    assert [sorted(epoch) for epoch in epochs] == [["s0", "s1", "s2", "s3", "s4"]] * 2
    assert epochs[0] != epochs[1]
    assert [(prompts[number].number, prompts[number].epoch) for number in (4, 5)] == [
        (4, 0),
        (5, 1),
    ]


def test_the_order_depends_on_the_seed_and_not_on_how_samples_were_read(
    samples: list[Sample],
) -> None:
    order = [Prompts(samples, seed=0)[number] for number in range(10)]
    assert [Prompts(samples[::-1], seed=0)[number] for number in reversed(range(10))] == order[::-1]
    assert [Prompts(samples, seed=1)[number] for number in range(10)] != order


def test_samples_without_a_label_are_counted_and_left_out(
    samples: list[Sample], caplog: pytest.LogCaptureFixture
) -> None:
    assert labelled(samples) == samples and not caplog.messages
    bare = [replace(samples[1], label=None), replace(samples[3], label=None)]
    with caplog.at_level(logging.WARNING):
        assert labelled([samples[0], *bare, samples[4]]) == [samples[0], samples[4]]
    assert caplog.messages == ["skipped 2 samples without a label, such as s1"]
    with pytest.raises(
        DataError, match="none of 2 curated samples has a label; run `awares curate` again"
    ):
        labelled(bare)
