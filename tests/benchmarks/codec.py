"""How small and how fast weight deltas are: ours and the encodings in use elsewhere, on one core, every round trip checked bit for bit.

    PYTHONPATH=.:platform python tests/benchmarks/codec.py [--quick] [--json PATH]

Updates are synthetic (float32 weights moved by noise until a given share of their bfloat16 roundings changed) and real (consecutive
bfloat16 copies of a Qwen2.5-VL that AdamW trains here, in float32, on random tokens and pixels). The floor is the entropy of which weights
changed and by how many representable values, taken as independent; where tensors differ, a codec can be below it. Speeds are of full-model
bytes and CPU time on one thread (neighbours on the machine do not count), the best of several repetitions; decoding writes into memory that
exists. --quick takes a minute and smaller tensors.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
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
CHUNK = 1 << 21  # words that the rivals compress at a time: as many as one of our spans
ZSTD = pa.Codec("zstd", compression_level=1)
BF16 = WordType.of(torch.bfloat16)
IMAGE = 8  # token id of an image's place


@dataclass(frozen=True, slots=True)
class Update:
    """One or more consecutive versions, tensor by tensor.

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
    """What one codec made of one update. Shares are of full bytes; GB/s are of full bytes.

    Example:
        Row("3.3 %", "ours", 128.0, 0.033, 0.9, 0.0151, 0.0153, 2.1, 5.0)
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
    """A rival: numpy code for a chunk of words, in chunks that stay in the caches, as ours does."""

    def chunk(self, base: Words, new: Words) -> tuple:
        raise NotImplementedError

    def unchunk(self, base: Words, blob: tuple, out: Words) -> None:
        raise NotImplementedError

    def encode(self, base: Tensor, new: Tensor) -> Any:
        old, now = BF16.words(base).view(np.uint16), BF16.words(new).view(np.uint16)
        return [
            self.chunk(old[at : at + CHUNK], now[at : at + CHUNK])
            for at in range(0, len(now), CHUNK)
        ]

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
        """Gaps of 65,535 and more are that many and go on."""
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
    """Normal weights, moved by normal noise of the size at which that share of the roundings changes."""
    random = torch.Generator().manual_seed(0)
    master = torch.randn(count, generator=random) * 0.02
    noise = torch.randn(count, generator=random)
    few, low, high = slice(min(count, 1 << 20)), 0.0, 0.02
    for _ in range(30):
        rate = (low + high) / 2
        more = (
            (master[few] + rate * noise[few]).bfloat16() != master[few].bfloat16()
        ).float().mean() > share
        low, high = (low, rate) if more else (rate, high)
    return Update(
        f"synthetic {share:.1%}", [(master.bfloat16(), noise.mul_(low).add_(master).bfloat16())]
    )


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
    """Versions after the optimizer has warmed up: three that follow each other, so two updates."""
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
    pairs = [
        pair
        for old, new in zip(versions, versions[1:], strict=False)
        for pair in zip(old, new, strict=True)
    ]
    return Update(f"Qwen2.5-VL, AdamW {rate:g}", pairs)


def updates(quick: bool, tell: Callable[[str], None]) -> Iterator[Update]:
    for share in (0.012, 0.033, 0.081):
        tell(f"synthetic {share:.1%}")
        yield synthetic(share, 12_000_000 if quick else 64_000_000)
    for rate in (1e-6, 1e-5, 1e-4):
        yield trained(rate, quick, tell)


# Measurement


def entropy(counts: NDArray[np.integer]) -> float:
    """Bits per draw."""
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log2(shares)).sum())


def floor(update: Update) -> tuple[float, float, float]:
    """Share of changed weights, of steps of one among them, and the entropy as a share of full bytes."""
    histogram = np.zeros(1 << 16, np.int64)
    for base, new in update.pairs:
        steps = BF16.steps(BF16.words(base), BF16.words(new)).view(np.uint16)
        histogram += np.bincount(steps, minlength=1 << 16)
    total, changed = histogram.sum(), histogram[1:].sum()
    return (
        changed / total,
        (histogram[1] + histogram[-1]) / max(changed, 1),
        entropy(histogram) / 16,
    )


def length(blob: object) -> int:
    """Bytes of a blob; a rival's counts are taken for four bytes."""
    if isinstance(blob, bytes):
        return len(blob)
    return sum(map(length, blob)) if isinstance(blob, list | tuple) else 4


def best(work: Callable[[], object], repetitions: int) -> float:
    """CPU seconds of the fastest repetition."""
    seconds = []
    for _ in range(repetitions):
        started = time.process_time()
        work()
        seconds.append(time.process_time() - started)
    return min(seconds)


def measure(update: Update, repetitions: int, tell: Callable[[str], None]) -> Iterator[Row]:
    changed, one_step, entropy_floor = floor(update)
    outs = [torch.zeros_like(new) for _, new in update.pairs]
    for rival in CODECS:
        tell(f"{update.name}: {rival.name}")
        blobs = [rival.encode(base, new) for base, new in update.pairs]
        decoding = [
            (base, blob, out)
            for (base, _), blob, out in zip(update.pairs, blobs, outs, strict=True)
        ]
        encode_s = best(
            lambda rival=rival: [rival.encode(base, new) for base, new in update.pairs], repetitions
        )
        decode_s = best(
            lambda rival=rival, decoding=decoding: [rival.decode(*job) for job in decoding],
            repetitions,
        )
        for (_, new), out in zip(update.pairs, outs, strict=True):
            assert torch.equal(out.view(torch.int16), new.view(torch.int16)), (
                f"{rival.name} is not lossless"
            )
            out.zero_()
        speeds = (update.size / seconds / 1e9 for seconds in (encode_s, decode_s))
        yield Row(
            update.name,
            rival.name,
            update.size / 1e6,
            changed,
            one_step,
            entropy_floor,
            sum(map(length, blobs)) / update.size,
            *speeds,
        )


def table(rows: list[Row]) -> str:
    lines = []
    for row in rows:
        if row.codec == CODECS[0].name:
            lines += [
                f"\n{row.update}: {row.megabytes:.0f} MB, {row.changed:.2%} changed, {row.one_step:.0%} by one step, floor {row.floor:.3%}"
            ]
        lines += [
            f"  {row.codec:28}{row.ratio:9.3%} of full bytes{row.encode:8.2f} GB/s encode{row.decode:8.2f} GB/s decode"
        ]
    return "\n".join(lines)


def readme(rows: list[Row]) -> str:
    """The README's table: a line per update, a column per codec."""
    found = {
        update: [row for row in rows if row.update == update]
        for update in dict.fromkeys(row.update for row in rows)
    }
    lines = [
        "| update | changed | ours | encode, decode | "
        + " | ".join(codec.name for codec in CODECS[1:])
        + " |"
    ]
    lines.append("|---" * (4 + len(CODECS) - 1) + "|")
    for update, (ours, *rivals) in found.items():
        shares = " | ".join(f"{100 * rival.ratio:.3g} %" for rival in rivals)
        lines.append(
            f"| {update} | {100 * ours.changed:.2g} % | {100 * ours.ratio:.3g} % | {ours.encode:.1f}, {ours.decode:.1f} | {shares} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="smaller tensors, fewer repetitions")
    parser.add_argument("--json", type=Path, help="where to write the rows")
    parser.add_argument(
        "--readme", type=Path, help="document to fill with the table, between its codec marks"
    )
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[Row] = []
    with Progress(
        TextColumn("{task.description}"), TimeElapsedColumn(), transient=True
    ) as progress:
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
