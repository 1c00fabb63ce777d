"""Tests how the weights are split into the parts that the ranks publish."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from awares_platform.weights import parts
from awares_platform.weights.parts import Part, even_parts, split, whole_parts


def test_two_ranks_share_all_tensors_in_equal_halves() -> None:
    named = [("a", torch.arange(6.0).reshape(2, 3)), ("b", torch.arange(4.0))]
    first, second = (list(even_parts(named, rank, 2, torch.bfloat16)) for rank in (0, 1))
    assert [(part.name, part.start, part.values.tolist()) for part in first] == [
        ("a", 0, [0, 1, 2, 3, 4])
    ]
    assert [(part.name, part.start, part.values.tolist()) for part in second] == [
        ("a", 5, [5]),
        ("b", 0, [0, 1, 2, 3]),
    ]
    assert second[0].shape == (2, 3) and second[0].end == 6
    assert second[0].values.dtype == torch.bfloat16


@given(st.lists(st.lists(st.integers(0, 5), max_size=3), min_size=1, max_size=5), st.integers(1, 7))
def test_the_parts_of_all_ranks_make_up_each_tensor_once(
    shapes: list[list[int]], ranks: int
) -> None:
    named = [(str(index), torch.randn(shape)) for index, shape in enumerate(shapes)]
    held: dict[str, list[Part]] = {name: [] for name, _ in named}
    sizes = []
    for rank in range(ranks):
        share = list(even_parts(named, rank, ranks, torch.float32))
        sizes.append(sum(part.values.numel() for part in share))
        for part in share:
            held[part.name].append(part)
    assert max(sizes) - min(sizes) <= 1
    for name, tensor in named:
        assert held[name][0].start == 0 and held[name][-1].end == tensor.numel()
        assert torch.equal(torch.cat([part.values for part in held[name]]), tensor.reshape(-1))


def test_parts_are_copies_and_integers_keep_their_dtype() -> None:
    weight, steps = torch.ones(4), torch.tensor(7)
    share = list(even_parts([("weight", weight), ("steps", steps)], 0, 1, torch.float32))
    weight.zero_()
    assert share[0].values.tolist() == [1, 1, 1, 1]
    assert share[1].values.dtype == torch.int64 and share[1].shape == ()


def test_long_parts_are_cut_into_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "PIECE_ELEMENTS", 4)
    state = {"a": torch.arange(10).reshape(5, 2), "none": torch.empty(0, 3)}
    cut = list(split(whole_parts(state)))
    assert [(part.name, part.start, part.end) for part in cut] == [
        ("a", 0, 4),
        ("a", 4, 8),
        ("a", 8, 10),
        ("none", 0, 0),
    ]
    assert cut[2].values.tolist() == [8, 9]
