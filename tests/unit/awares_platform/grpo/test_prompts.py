from awares.sample import Sample
from awares_platform.grpo.prompts import Prompts


def test_every_epoch_holds_every_sample_once_in_another_order(samples: list[Sample]) -> None:
    prompts = Prompts(samples, seed=3)
    epochs = [[prompts[number].sample.sample_id for number in range(start, start + 5)] for start in (0, 5)]
    assert [sorted(epoch) for epoch in epochs] == [["s0", "s1", "s2", "s3", "s4"]] * 2
    assert epochs[0] != epochs[1]
    assert [(prompts[number].number, prompts[number].epoch) for number in (4, 5)] == [(4, 0), (5, 1)]


def test_the_order_depends_on_the_seed_and_not_on_how_samples_were_read(samples: list[Sample]) -> None:
    order = [Prompts(samples, seed=0)[number] for number in range(10)]
    assert [Prompts(samples[::-1], seed=0)[number] for number in reversed(range(10))] == order[::-1]
    assert [Prompts(samples, seed=1)[number] for number in range(10)] != order
