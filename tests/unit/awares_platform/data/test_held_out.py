import random

from hypothesis import given
from hypothesis import strategies as st

from awares.sample import Sample
from awares_platform.data.held_out import divide


def sample(number: int, image: int) -> Sample:
    return Sample(f"s{number}", f"{image:064x}", "question?", "7")


@given(st.lists(st.integers(0, 60), max_size=200), st.integers(0, 30), st.randoms())
def test_no_image_is_in_both_parts(images: list[int], count: int, order: random.Random) -> None:
    samples = [sample(number, image) for number, image in enumerate(images)]
    kept, held = divide(samples, count)
    assert len(held) <= min(count, len(samples) // 10)
    assert sorted([*kept, *held], key=samples.index) == samples
    assert not {one.image for one in kept} & {one.image for one in held}
    mixed = order.sample(samples, len(samples))
    assert set(divide(mixed, count)[1]) == set(held)


def test_the_limit_is_reached_if_each_image_has_one_question() -> None:
    samples = [sample(number, number) for number in range(100)]
    assert len(divide(samples, 7)[1]) == 7
    assert len(divide(samples, 50)[1]) == 10
    assert divide(samples, 0) == (samples, [])


def test_an_image_with_many_questions_does_not_keep_others_from_being_held_out() -> None:
    samples = [sample(number, 0 if number < 50 else number) for number in range(100)]
    kept, held = divide(samples, 10)
    assert len(held) == 10 and samples[:50] == kept[:50]
