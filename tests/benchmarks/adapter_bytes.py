"""Measures how many bytes a version of a LoRA adapter takes, after different numbers of steps.

    PYTHONPATH=.:platform python tests/benchmarks/adapter_bytes.py [--readme PATH]

The adapter belongs to one layer of the 7B model, and its gradients are synthetic. A size is encoded
bytes / unencoded bytes.
"""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from awares_platform.plan.geometry import KNOWN
from awares_platform.weights.codec import encode
from tests.benchmarks.command import Screen, parser, save

RANK, MEAN = 8, 0.1
RATES, STEPS = (1e-5, 1e-4), (1, 2, 5, 10, 50, 200)


def adapter() -> list[nn.Parameter]:
    """Return the matrices A and B of a decoder layer's linear layers, initialised like peft's."""
    found = []
    for below, above in KNOWN["7B"].linear().values():
        down = nn.init.kaiming_uniform_(torch.empty(RANK, below), a=math.sqrt(5))
        found += [nn.Parameter(down), nn.Parameter(torch.zeros(above, RANK))]
    return found


class Training:
    """An adapter, the constant means of its gradients, and the optimizer's state."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.adapter = adapter()
        self._means = [MEAN * torch.randn_like(matrix) for matrix in self.adapter]
        self.begin()

    def begin(self) -> None:
        """Replace the optimizer by a new one, whose state holds no earlier gradients."""
        self._optimizer = torch.optim.AdamW(self.adapter, weight_decay=0)

    def step(self, rate: float) -> list[Tensor]:
        """Take a step, and return the adapter as it is published."""
        for matrix, mean in zip(self.adapter, self._means, strict=True):
            matrix.grad = mean + torch.randn_like(matrix)
        self._optimizer.param_groups[0]["lr"] = rate
        self._optimizer.step()
        return self.published()

    def published(self) -> list[Tensor]:
        return [matrix.detach().bfloat16() for matrix in self.adapter]


def measure(rate: float) -> Iterator[tuple[int, float, float]]:
    """For each step of STEPS, yield its number, the size of its delta and the size of an anchor."""
    training = Training()
    old = training.published()
    for step in range(1, STEPS[-1] + 1):
        new = training.step(rate)
        if step in STEPS:
            yield step, size(old, new), size([None] * len(new), new)
        old = new


def rehearsed() -> tuple[float, float]:
    """Return the sizes of a whole adapter, and of its delta in the first step of a new optimizer.

    This imitates GRPO, which starts from the adapter that SFT has trained.
    """
    training = Training()
    training.step(1e-4)
    sft = training.step(5e-5)
    training.begin()
    return size([None] * len(sft), sft), size(sft, training.step(1e-5))


def size(bases: Sequence[Tensor | None], matrices: list[Tensor]) -> float:
    """Return the encoded bytes of `matrices`, divided by their unencoded bytes."""
    encoded = sum(len(encode(*pair)) for pair in zip(bases, matrices, strict=True))
    return encoded / sum(2 * matrix.numel() for matrix in matrices)


def main() -> None:
    given = parser(__doc__, "no effect", "adapter-bytes").parse_args()
    torch.set_num_threads(1)
    rows, lines = [], ["| learning rate | step | delta | anchor |", "|---|---|---|---|"]
    with Screen() as screen:
        for rate in RATES:
            screen.tell(f"learning rate {rate:g}")
            for step, delta, anchor in measure(rate):
                rows.append({"rate": rate, "step": step, "delta": delta, "anchor": anchor})
                lines.append(f"| {rate:.0e} | {step} | {delta:.1%} | {anchor:.1%} |")
        anchor, delta = rehearsed()
        screen.show("\n".join([*lines, f"rehearsal: anchor {anchor:.1%}, delta {delta:.1%}"]))
    save(given, "adapter-bytes", "\n".join(lines), rows)


if __name__ == "__main__":
    main()
