"""Measures how many bytes a version of a LoRA adapter takes, after different numbers of steps.

    PYTHONPATH=.:platform python tests/benchmarks/adapter_bytes.py [--readme PATH]

The adapter has rank 8 and belongs to one decoder layer of the 7B model. AdamW trains it in float32,
and each version is its copy in bfloat16. The gradients are synthetic: each element has a constant
mean and independent noise, whose deviation is ten times the mean's. The script takes ten seconds.

A size is the number of encoded bytes divided by the number of unencoded bytes. A delta encodes the
change since the step before. An anchor encodes the whole adapter.
"""

import math
from collections.abc import Iterator

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


def measure(rate: float) -> Iterator[tuple[int, float, float]]:
    """Yield the number of a step, the size of its delta, and the size of an anchor after it."""
    torch.manual_seed(0)
    trained = adapter()
    means = [MEAN * torch.randn_like(matrix) for matrix in trained]
    optimizer = torch.optim.AdamW(trained, lr=rate, weight_decay=0)
    raw = sum(2 * matrix.numel() for matrix in trained)
    old = published(trained)
    for step in range(1, STEPS[-1] + 1):
        for matrix, mean in zip(trained, means, strict=True):
            matrix.grad = mean + torch.randn_like(matrix)
        optimizer.step()
        new = published(trained)
        if step in STEPS:
            delta = sum(len(encode(*pair)) for pair in zip(old, new, strict=True))
            anchor = sum(len(encode(None, matrix)) for matrix in new)
            yield step, delta / raw, anchor / raw
        old = new


def published(trained: list[nn.Parameter]) -> list[Tensor]:
    return [matrix.detach().bfloat16() for matrix in trained]


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
        screen.show("\n".join(lines))
    save(given, "adapter-bytes", "\n".join(lines), rows)


if __name__ == "__main__":
    main()
