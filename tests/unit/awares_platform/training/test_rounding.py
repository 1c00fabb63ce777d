"""Tests that a layer in 16 bits does not lose updates of its adapter to rounding errors.

After k steps, every element of `up` (the matrix B of LoRA) has moved by k learning rates.
"""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from awares_platform.training import rounding
from awares_platform.training.rounding import add_once
from awares_platform.weights.adapter import fold

WIDTH, RANK, TOKENS, SCALE, RATE = 3584, 8, 64, 2.0, 1e-5


@pytest.fixture(scope="module")
def layer() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return a weight, the inputs of a few tokens, `down`, and the signs of the elements of `up`.

    `down` and `up` are the matrices A and B of LoRA. A sign is the direction of an element's steps.
    """
    torch.manual_seed(0)
    return (
        (torch.randn(WIDTH, WIDTH) * 0.02).bfloat16(),
        torch.randn(TOKENS, WIDTH).bfloat16(),
        (torch.empty(RANK, WIDTH).uniform_(-1, 1) / math.sqrt(WIDTH)).bfloat16(),
        torch.randn(WIDTH, RANK).sign(),
    )


def share(found: Tensor, wanted: Tensor) -> float:
    """Return the fraction of the change `wanted` that the change `found` contains."""
    return float((found.double() * wanted.double()).sum() / wanted.double().square().sum())


@pytest.mark.parametrize(("steps", "kept_by_others"), [(1, 0.03), (10, 0.2)])
def test_an_early_update_is_played_whole(
    layer: tuple[Tensor, Tensor, Tensor, Tensor], steps: int, kept_by_others: float
) -> None:
    """Check that `add_once` keeps the update.

    Folding the update into a 16-bit weight, or adding it to a rounded output, loses most of it.
    """
    weight, inputs, down, signs = layer
    up = (signs * RATE * steps).bfloat16()
    output = (inputs.float() @ weight.float().T).bfloat16()
    change = SCALE * (inputs.float() @ down.float().T) @ up.float().T
    folded = fold(weight, down, up, SCALE)
    shares = {
        "folded": share(
            (inputs.float() @ folded.float().T).bfloat16().float() - output.float(), change
        ),
        "added after rounding": share(
            (output + change.bfloat16()).float() - output.float(), change
        ),
        "added once": share(add_once(output, change.bfloat16()).float() - output.float(), change),
    }
    print(steps, shares)
    assert shares["folded"] < kept_by_others
    assert shares["added after rounding"] < kept_by_others
    assert shares["added once"] == pytest.approx(1, abs=0.12 / math.sqrt(steps))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_without_a_change_the_output_stays_bit_for_bit(dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    powers = 2.0 ** torch.arange(-8.0, 9.0).repeat(4)
    for output in (torch.randn(256, 512), torch.stack([powers, -powers]), torch.zeros(2, 3)):
        output = output.to(dtype)
        assert torch.equal(add_once(output, torch.zeros_like(output)), output)


def test_a_large_change_is_added_to_within_one_rounding() -> None:
    torch.manual_seed(2)
    output, change = torch.randn(64, 512).bfloat16(), torch.randn(64, 512).bfloat16()
    exact = output.float() + change.float()
    error = (add_once(output, change).float() - exact).abs()
    assert (error <= 2.0**-7 * torch.maximum(exact.abs(), output.abs().float())).all()


def test_a_row_does_not_depend_on_its_batch() -> None:
    torch.manual_seed(3)
    output, change = torch.randn(8, 512).bfloat16(), torch.randn(8, 512).bfloat16() * 1e-3
    alone = torch.cat([add_once(output[i : i + 1], change[i : i + 1]) for i in range(8)])
    assert torch.equal(add_once(output, change), alone)


class _Largest(TorchDispatchMode):
    """Records the number of elements of the largest 32-bit tensor that an operation returns."""

    elements = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and result.itemsize == 4:
            self.elements = max(self.elements, result.numel())
        return result


@pytest.mark.parametrize("shape", [(3, 50, 96), (150, 96), (1, 96), (0, 96), (2, 3, 7)])
def test_parts_give_the_whole_sum_and_bound_the_memory(
    shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Check that `add_once` adds a few rows at a time, so that the 32-bit tensors stay small."""
    torch.manual_seed(5)
    output, change = torch.randn(shape).bfloat16(), torch.randn(shape).bfloat16() * 1e-3
    whole = add_once(output, change)
    monkeypatch.setattr(rounding, "CHUNK", 1000)
    with _Largest() as largest:
        parts = add_once(output, change)
    assert torch.equal(parts, whole)
    assert largest.elements <= 1000


def test_a_transposed_output_gives_the_same_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounding, "CHUNK", 64)
    torch.manual_seed(6)
    output, change = (torch.randn(16, 24, 8).bfloat16().transpose(0, 1) for _ in range(2))
    assert torch.equal(add_once(output, change), add_once(output.contiguous(), change.contiguous()))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_the_gradient_is_that_of_a_sum(dtype: torch.dtype) -> None:
    torch.manual_seed(4)
    output, change = (torch.randn(4, 8).to(dtype).requires_grad_() for _ in range(2))
    saved: list[Tensor] = []
    weights = torch.arange(32, dtype=dtype).view(4, 8)

    def keep(tensor: Tensor) -> Tensor:
        saved.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        total = add_once(output, change)
    assert not saved
    (total * weights).sum().backward()
    assert output.grad is not None and change.grad is not None
    assert torch.equal(output.grad, weights) and torch.equal(change.grad, weights)
