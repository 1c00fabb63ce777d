"""Measures the size and the speed of weight deltas, for our codec and four simpler encodings.

    PYTHONPATH=.:platform python tests/benchmarks/codec.py [--quick] [--json PATH]

- size: encoded bytes / unencoded bytes
- floor: the size that an ideal encoder reaches, if the weights change independently at random
- speed: unencoded bytes / CPU seconds of one thread
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import torch
from numpy.typing import NDArray

from tests.benchmarks.command import Screen, parser, save
from tests.benchmarks.encoders import BF16, CODECS
from tests.benchmarks.weight_update import Update, updates


@dataclass(frozen=True, slots=True)
class Row:
    """The figures of one codec on one update.

    Example:
        Row(
            update="3.3 %", codec="ours", megabytes=128.0, changed=0.033, one_step=0.9,
            floor=0.0151, ratio=0.0153, encode=2.1, decode=5.0,
        )
    """

    update: str
    codec: str
    megabytes: float
    """The unencoded size of the update."""
    changed: float
    """The share of the weights that change."""
    one_step: float
    """The share of the changed weights that move to a neighbouring value."""
    floor: float
    """The ratio that an ideal encoder would reach."""
    ratio: float
    """The encoded size divided by the unencoded size."""
    encode: float
    """The speed of encoding, in GB/s."""
    decode: float
    """The speed of decoding, in GB/s."""


def entropy(counts: NDArray[np.integer]) -> float:
    """Return the entropy of a histogram in bits per draw."""
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log2(shares)).sum())


def floor(update: Update) -> tuple[float, float, float]:
    """Return the share of weights that change, the share of changes by one step, and the floor.

    The floor is the entropy of a weight's step in bits, divided by the 16 bits of a weight.
    """
    histogram = np.zeros(1 << 16, np.int64)
    for base, new in update.pairs:
        steps = BF16.steps(BF16.words(base), BF16.words(new)).view(np.uint16)
        histogram += np.bincount(steps, minlength=1 << 16)
    total, changed = histogram.sum(), histogram[1:].sum()
    one_step = (histogram[1] + histogram[-1]) / max(changed, 1)
    return changed / total, one_step, entropy(histogram) / 16


def length(blob: object) -> int:
    """Return the number of bytes of an encoding: a blob, a number, or a nested list of these.

    A number counts as four bytes.
    """
    if isinstance(blob, bytes):
        return len(blob)
    return sum(map(length, blob)) if isinstance(blob, list | tuple) else 4


def best(work: Callable[[], object], repetitions: int) -> float:
    """Return the CPU seconds of the fastest repetition."""
    seconds = []
    for _ in range(repetitions):
        started = time.process_time()
        work()
        seconds.append(time.process_time() - started)
    return min(seconds)


def measure(update: Update, repetitions: int, tell: Callable[[str], None]) -> Iterator[Row]:
    """Measure every codec on `update`. Raises AssertionError if a codec is not lossless."""
    changed, one_step, entropy_floor = floor(update)
    outs = [torch.zeros_like(new) for _, new in update.pairs]
    for tried in CODECS:
        tell(f"{update.name}: {tried.name}")
        blobs = [tried.encode(base, new) for base, new in update.pairs]
        bases = [base for base, _ in update.pairs]
        decoding = list(zip(bases, blobs, outs, strict=True))
        encode = partial(_each, tried.encode, update.pairs)
        decode = partial(_each, tried.decode, decoding)
        encode_s, decode_s = best(encode, repetitions), best(decode, repetitions)
        for (_, new), out in zip(update.pairs, outs, strict=True):
            same = torch.equal(out.view(torch.int16), new.view(torch.int16))
            assert same, f"{tried.name} is not lossless"
            out.zero_()
        yield Row(
            update=update.name,
            codec=tried.name,
            megabytes=update.size / 1e6,
            changed=changed,
            one_step=one_step,
            floor=entropy_floor,
            ratio=sum(map(length, blobs)) / update.size,
            encode=update.size / encode_s / 1e9,
            decode=update.size / decode_s / 1e9,
        )


def _each(work: Callable[..., object], jobs: Sequence[tuple]) -> None:
    for job in jobs:
        work(*job)


def table(rows: list[Row]) -> str:
    lines = []
    for row in rows:
        if row.codec == CODECS[0].name:
            lines.append(
                f"\n{row.update}: {row.megabytes:.0f} MB, {row.changed:.2%} changed, "
                f"{row.one_step:.0%} by one step, floor {row.floor:.3%}"
            )
        lines.append(
            f"  {row.codec:28}{row.ratio:9.3%} of full bytes"
            f"{row.encode:8.2f} GB/s encode{row.decode:8.2f} GB/s decode"
        )
    return "\n".join(lines)


def readme(rows: list[Row]) -> str:
    """Return a Markdown table: a row for each update, with the size that each codec reaches."""
    names = dict.fromkeys(row.update for row in rows)
    found = {update: [row for row in rows if row.update == update] for update in names}
    others = " | ".join(codec.name for codec in CODECS[1:])
    lines = [f"| update | changed | ours | encode, decode | {others} |"]
    lines.append("|---" * (4 + len(CODECS) - 1) + "|")
    for update, (ours, *rest) in found.items():
        shares = " | ".join(f"{100 * other.ratio:.3g} %" for other in rest)
        lines.append(
            f"| {update} | {100 * ours.changed:.2g} % | {100 * ours.ratio:.3g} % "
            f"| {ours.encode:.1f}, {ours.decode:.1f} | {shares} |"
        )
    return "\n".join(lines)


def main() -> None:
    given = parser(__doc__, "smaller tensors, fewer repetitions", "codec").parse_args()
    torch.set_num_threads(1)
    rows: list[Row] = []
    with Screen() as screen:
        for update in updates(given.quick, screen.tell):
            found = [*measure(update, 3 if given.quick else 5, screen.tell)]
            screen.show(table(found))
            rows += found
    save(given, "codec", readme(rows), [asdict(row) for row in rows])


if __name__ == "__main__":
    main()
