"""Measure the size and the speed of weight deltas, for our codec and four simpler encodings.

    PYTHONPATH=.:platform python tests/benchmarks/codec.py [--quick] [--json PATH]

--quick takes a minute and uses smaller tensors. Every round trip is checked bit for bit.

Updates. A synthetic update adds noise to float32 weights until a given share of their bfloat16
roundings changes. A real update is the change between consecutive bfloat16 copies of a Qwen2.5-VL.
This script trains that model with AdamW in float32, on random tokens and pixels.

Sizes are shares of the full bytes. The floor is the entropy of the steps between representable
values, as if every weight were independent. A codec may be below the floor, because tensors differ
from each other.

Speeds are full bytes per CPU second on one thread, the best of several repetitions, so other
processes on the machine hardly matter. Decoding writes into allocated memory.

How to read it: compare the size of "ours" with the floor and with the other encodings at the same
changed share. Compare its speed with the network: the codec pays off if it is faster than the link.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from rich.progress import Progress, TextColumn, TimeElapsedColumn
from torch import Tensor
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from awares_platform.weights import codec
from awares_platform.weights.codec.words import WordType

Words = NDArray[np.uint16]
CHUNK = 1 << 21
"""Number of words that the other encodings compress at once: the size of one of our spans."""

ZSTD = pa.Codec("zstd", compression_level=1)
BF16 = WordType.of(torch.bfloat16)

IMAGE = 8
"""Token id of the image placeholder."""


@dataclass(frozen=True, slots=True)
class Update:
    """Pairs (base, new) of each tensor of one or more consecutive versions.

    Example:
        Update("3.3 %", [(base, new)])
    """

    name: str
    pairs: list[tuple[Tensor, Tensor]]

    @property
    def size(self) -> int:
        return sum(new.nbytes for _, new in self.pairs)


@dataclass(frozen=True, slots=True)
class Row:
    """The figures of one codec on one update.

    `changed`, `floor` and `ratio` are shares of the full bytes or weights. `one_step` is the share
    of the changed weights that move to a neighbouring value. `encode` and `decode` are GB/s.

    Example:
        Row(
            update="3.3 %", codec="ours", megabytes=128.0, changed=0.033, one_step=0.9,
            floor=0.0151, ratio=0.0153, encode=2.1, decode=5.0,
        )
    """

    update: str
    codec: str
    megabytes: float
    changed: float
    one_step: float
    floor: float
    ratio: float
    encode: float
    decode: float


# Codecs


def pack(array: np.ndarray) -> bytes:
    return ZSTD.compress(array.view(np.uint8), asbytes=True)


def unpack(data: bytes, dtype: type, count: int) -> np.ndarray:
    return np.frombuffer(ZSTD.decompress(data, count * np.dtype(dtype).itemsize), dtype)


class Ours:
    name = "ours"

    def encode(self, base: Tensor, new: Tensor) -> Any:
        return codec.encode(base, new)

    def decode(self, base: Tensor, blob: Any, out: Tensor) -> None:
        codec.decode(base, blob, out=out)


class Chunked(Ours):
    """An encoding to compare with: numpy code on chunks of words that fit the caches, like ours."""

    def chunk(self, base: Words, new: Words) -> tuple:
        raise NotImplementedError

    def unchunk(self, base: Words, blob: tuple, out: Words) -> None:
        raise NotImplementedError

    def encode(self, base: Tensor, new: Tensor) -> Any:
        old, now = BF16.words(base).view(np.uint16), BF16.words(new).view(np.uint16)
        spans = [slice(at, at + CHUNK) for at in range(0, len(now), CHUNK)]
        return [self.chunk(old[span], now[span]) for span in spans]

    def decode(self, base: Tensor, blob: Any, out: Tensor) -> None:
        old, now = BF16.words(base).view(np.uint16), BF16.words(out).view(np.uint16)
        for at, part in zip(range(0, len(now), CHUNK), blob, strict=True):
            self.unchunk(old[at : at + CHUNK], part, now[at : at + CHUNK])


class Xor(Chunked):
    name = "XOR, zstd-1"

    def chunk(self, base: Words, new: Words) -> tuple:
        return (pack(base ^ new),)

    def unchunk(self, base: Words, blob: tuple, out: Words) -> None:
        np.bitwise_xor(base, unpack(blob[0], np.uint16, len(out)), out=out)


class Index(Chunked):
    name = "int32 index + bf16, zstd-1"

    def chunk(self, base: Words, new: Words) -> tuple:
        changed = np.flatnonzero(base != new)
        return len(changed), pack(changed.astype(np.int32)), pack(new[changed])

    def unchunk(self, base: Words, blob: tuple, out: Words) -> None:
        count, changed, values = blob
        out[:] = base
        out[unpack(changed, np.int32, count)] = unpack(values, np.uint16, count)


class Gap(Chunked):
    name = "u16 gap + bf16, zstd-1"

    def chunk(self, base: Words, new: Words) -> tuple:
        """Write a gap of 65,535 or more as several numbers; all but the last are 65,535."""
        changed = np.flatnonzero(base != new)
        gaps = np.diff(changed, prepend=-1) - 1
        ends = np.cumsum(gaps // 65535 + 1)
        escaped = np.full(ends[-1] if len(ends) else 0, 65535, np.uint16)
        escaped[ends - 1] = gaps % 65535
        return len(escaped), pack(escaped), len(changed), pack(new[changed])

    def unchunk(self, base: Words, blob: tuple, out: Words) -> None:
        length, gaps, count, values = blob
        out[:] = base
        gaps = unpack(gaps, np.uint16, length)
        positions = np.cumsum(gaps + (gaps != 65535), dtype=np.int64)[gaps != 65535] - 1
        out[positions] = unpack(values, np.uint16, count)


class Dense(Chunked):
    name = "dense, zstd-1"

    def chunk(self, base: Words, new: Words) -> tuple:
        return (pack(new),)

    def unchunk(self, base: Words, blob: tuple, out: Words) -> None:
        out[:] = unpack(blob[0], np.uint16, len(out))


CODECS = (Ours(), Xor(), Index(), Gap(), Dense())


# Updates


def synthetic(share: float, count: int) -> Update:
    """Add normal noise to normal weights, so that `share` of their bfloat16 roundings changes.

    Bisection on the first million weights finds the size of the noise.
    """
    random = torch.Generator().manual_seed(0)
    master = torch.randn(count, generator=random) * 0.02
    noise = torch.randn(count, generator=random)
    few, low, high = slice(min(count, 1 << 20)), 0.0, 0.02
    for _ in range(30):
        rate = (low + high) / 2
        moved = (master[few] + rate * noise[few]).bfloat16() != master[few].bfloat16()
        low, high = (low, rate) if moved.float().mean() > share else (rate, high)
    pair = master.bfloat16(), noise.mul_(low).add_(master).bfloat16()
    return Update(f"synthetic {share:.1%}", [pair])


def configuration(quick: bool) -> Qwen2_5_VLConfig:
    width, layers = (256, 4) if quick else (768, 12)
    return Qwen2_5_VLConfig(
        text_config={
            "vocab_size": 16384,
            "hidden_size": width,
            "intermediate_size": 3 * width,
            "num_hidden_layers": layers,
            "num_attention_heads": width // 64,
            "num_key_value_heads": width // 128,
            "max_position_embeddings": 1024,
            "rope_parameters": {
                "rope_type": "default",
                "mrope_section": [8, 12, 12],
                "rope_theta": 10000.0,
            },
            "bos_token_id": None,
            "eos_token_id": None,
        },
        vision_config={
            "depth": 4,
            "hidden_size": 256,
            "intermediate_size": 512,
            "num_heads": 4,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "window_size": 112,
            "out_hidden_size": width,
            "fullatt_block_indexes": [1, 3],
        },
        image_token_id=IMAGE,
        video_token_id=IMAGE + 1,
        vision_start_token_id=IMAGE - 1,
        vision_end_token_id=IMAGE - 2,
        tie_word_embeddings=False,
    )


def trained(rate: float, quick: bool, tell: Callable[[str], None]) -> Update:
    """Train for nine steps, and return the two updates between the last three versions.

    The first six steps warm up the optimizer.
    """
    torch.manual_seed(0)
    model = Qwen2_5_VLForConditionalGeneration(configuration(quick))
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    warm, versions = 6, []
    for step in range(warm + 3):
        tell(f"AdamW at {rate:g}: step {step + 1} of {warm + 3}")
        ids_BT = torch.randint(16, 16384, (2, 48))
        labels_BT = ids_BT.clone()
        ids_BT[:, :6] = torch.tensor([IMAGE - 1, IMAGE, IMAGE, IMAGE, IMAGE, IMAGE - 2])
        labels_BT[:, :6] = -100
        model(
            input_ids=ids_BT,
            labels=labels_BT,
            attention_mask=torch.ones_like(ids_BT),
            mm_token_type_ids=(ids_BT == IMAGE).int(),
            pixel_values=torch.randn(2 * 16, 3 * 2 * 14 * 14),
            image_grid_thw=torch.tensor([[1, 4, 4]] * 2),
        ).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step >= warm:
            versions.append([weight.detach().bfloat16() for weight in model.parameters()])
    pairs = [pair for old, new in pairwise(versions) for pair in zip(old, new, strict=True)]
    return Update(f"Qwen2.5-VL, AdamW {rate:g}", pairs)


def updates(quick: bool, tell: Callable[[str], None]) -> Iterator[Update]:
    for share in (0.012, 0.033, 0.081):
        tell(f"synthetic {share:.1%}")
        yield synthetic(share, 12_000_000 if quick else 64_000_000)
    for rate in (1e-6, 1e-5, 1e-4):
        yield trained(rate, quick, tell)


# Measurement


def entropy(counts: NDArray[np.integer]) -> float:
    """Return the entropy of a histogram in bits per draw."""
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log2(shares)).sum())


def floor(update: Update) -> tuple[float, float, float]:
    """Return the changed share, the share of single steps among the changes, and the floor."""
    histogram = np.zeros(1 << 16, np.int64)
    for base, new in update.pairs:
        steps = BF16.steps(BF16.words(base), BF16.words(new)).view(np.uint16)
        histogram += np.bincount(steps, minlength=1 << 16)
    total, changed = histogram.sum(), histogram[1:].sum()
    one_step = (histogram[1] + histogram[-1]) / max(changed, 1)
    return changed / total, one_step, entropy(histogram) / 16


def length(blob: object) -> int:
    """Return the bytes of a blob. A number counts as four bytes."""
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
    """Return the table of the README: a row for each update, a column for each codec."""
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
    raw = argparse.RawDescriptionHelpFormatter
    marks = "document whose passage between the codec marks is replaced by the table"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--quick", action="store_true", help="smaller tensors, fewer repetitions")
    parser.add_argument("--json", type=Path, help="file for the rows")
    parser.add_argument("--readme", type=Path, help=marks)
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[Row] = []
    columns = TextColumn("{task.description}"), TimeElapsedColumn()
    with Progress(*columns, transient=True) as progress:
        task = progress.add_task("")

        def tell(what: str) -> None:
            progress.update(task, description=what)

        for update in updates(given.quick, tell):
            found = [*measure(update, 3 if given.quick else 5, tell)]
            progress.console.print(table(found), highlight=False, soft_wrap=True)
            rows += found
    if given.json:
        given.json.write_text(json.dumps([asdict(row) for row in rows], indent=1))
    if given.readme:
        sys.path.append(str(Path(__file__).parents[2] / ".ci"))
        from marked import fill

        fill(given.readme, "codec", readme(rows))


if __name__ == "__main__":
    main()
