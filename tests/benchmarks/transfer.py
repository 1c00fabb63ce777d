"""Measures the time from `publish` to verified weights in a reader's memory.

    PYTHONPATH=.:platform python tests/benchmarks/transfer.py [--quick] [--json PATH]

Each update is sent in three ways:

- the bus: encode a delta, upload it, download it, decode it and verify the weights
- boto3: one put and one get of the same number of bytes
- a checkpoint: upload and download the whole model as safetensors
"""

import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from awares_platform.store import ObjectStore
from awares_platform.weights import Cadence, Publisher, Received, Subscriber
from tests.benchmarks.command import Screen, parser, save
from tests.benchmarks.local_store import local_store

TENSOR = (4096, 1024)
READERS = (1, 2, 4, 8)


@dataclass(frozen=True, slots=True)
class Transfer:
    """The median seconds that an update takes in each of the three ways.

    Example:
        Transfer(
            update="3.3 % changed", full=8_388_608, size=157_000, bus_s=0.09, boto3_s=0.02,
            checkpoint_s=0.31,
        )
    """

    update: str
    full: int
    """The bytes of the model."""
    size: int
    """The bytes of the delta."""
    bus_s: float
    boto3_s: float
    checkpoint_s: float


def state(megabytes: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    count = max(1, megabytes * 1_000_000 // (2 * TENSOR[0] * TENSOR[1]))
    return {
        f"layers.{index}.weight": (torch.randn(TENSOR, generator=generator) * 0.02).to(
            torch.bfloat16
        )
        for index in range(count)
    }


def changed(before: dict[str, Tensor], share: float, seed: int) -> dict[str, Tensor]:
    """Return a copy of `before` in which `share` of the weights move by one representable value."""
    generator, after = torch.Generator().manual_seed(seed), {}
    for name, tensor in before.items():
        words = tensor.clone().view(torch.int16)
        moved = torch.rand(words.shape, generator=generator) < share
        words += moved.to(torch.int16)
        after[name] = words.view(torch.bfloat16)
    return after


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    result = work()
    return time.perf_counter() - started, result


def compare(
    store: ObjectStore, share: float, before: dict[str, Tensor], repetitions: int, directory: Path
) -> Transfer:
    name = f"{share:.1%} changed"
    publisher = Publisher(store, f"transfer-{share}", cadence=Cadence(anchor_every=10**6))
    subscriber = Subscriber(store, f"transfer-{share}")
    publisher.publish(1, before)
    held, times, size = subscriber.receive(1), ([], [], []), 0
    for number in range(2, repetitions + 2):
        before = changed(before, share, number)
        bus_s, (manifest, held) = timed(
            lambda held=held, before=before, number=number: _through_bus(
                publisher, subscriber, number, before, held
            )
        )
        assert all(torch.equal(held.state[key], before[key]) for key in before)
        size, data = manifest.size, os.urandom(manifest.size)
        boto3_s, _ = timed(
            lambda data=data: (store.put("same-bytes", data), store.get("same-bytes"))
        )
        checkpoint_s, _ = timed(lambda before=before: _through_checkpoint(store, before, directory))
        for found, seconds in zip(times, (bus_s, boto3_s, checkpoint_s), strict=True):
            found.append(seconds)
    return Transfer(
        name, sum(tensor.nbytes for tensor in before.values()), size, *map(median, times)
    )


def _through_bus(
    publisher: Publisher,
    subscriber: Subscriber,
    version: int,
    values: dict[str, Tensor],
    held: Received,
) -> tuple[Any, Received]:
    manifest = publisher.publish(version, values)
    assert subscriber.head() == version
    return manifest, subscriber.receive(version, held)


def _through_checkpoint(store: ObjectStore, values: dict[str, Tensor], directory: Path) -> None:
    save_file(values, directory / "sent.safetensors")
    store.upload_file(directory / "sent.safetensors", "checkpoint")
    store.download_file("checkpoint", directory / "got.safetensors")
    load_file(directory / "got.safetensors")


def read(store: ObjectStore, start: Any, ready: Any, seconds: Any) -> None:
    """Receive version 2 as a delta to version 1, and put the seconds into the queue `seconds`.

    The measurement begins when the event `start` is set.
    """
    torch.set_num_threads(1)
    subscriber = Subscriber(store, "scaling")
    held = subscriber.receive(1)
    # Receive version 2 once without a measurement, because new memory is slow at its first use.
    subscriber.receive(2, held)
    ready.release()
    start.wait()
    begun = time.perf_counter()
    subscriber.head()
    subscriber.receive(2, held)
    seconds.put(time.perf_counter() - begun)


def scale(store: ObjectStore, readers: int) -> float:
    """Return the seconds until the slowest of `readers` processes has version 2."""
    context = multiprocessing.get_context("spawn")
    start, ready, seconds = context.Event(), context.Semaphore(0), context.Queue()
    processes = [
        context.Process(target=read, args=(store, start, ready, seconds)) for _ in range(readers)
    ]
    for process in processes:
        process.start()
    for _ in processes:
        ready.acquire()
    start.set()
    slowest = max(seconds.get() for _ in processes)
    for process in processes:
        process.join()
    return slowest


def line(row: Transfer) -> str:
    """Return the measurements of one update as a line of text."""
    boto3, checkpoint = row.bus_s / row.boto3_s, row.bus_s / row.checkpoint_s
    return (
        f"{row.update}: {row.size / row.full:.2%} of {row.full / 1e6:.0f} MB; "
        f"publish to loaded {row.bus_s:.2f} s = "
        f"{boto3:.1f} x boto3 for the same bytes ({row.boto3_s:.2f} s), "
        f"{checkpoint:.3f} x a whole checkpoint ({row.checkpoint_s:.2f} s)"
    )


def readme(rows: list[Transfer], scaling: dict[int, float]) -> str:
    """Return a table of the updates and a line about parallel readers, in Markdown."""
    lines = [
        "| changed | bytes sent | publish to loaded | over boto3, the same bytes "
        "| over a whole checkpoint |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        share, name = row.size / row.full, row.update.removesuffix(" changed")
        boto3, checkpoint = row.bus_s / row.boto3_s, row.bus_s / row.checkpoint_s
        cells = f"{name} | {share:.2%} | {row.bus_s:.2f} s | {boto3:.1f} | {checkpoint:.2f}"
        lines.append(f"| {cells} |")
    readers = ", ".join(f"{count}: {seconds:.2f} s" for count, seconds in scaling.items())
    last = (
        f"{rows[0].full / 1e6:.0f} MB of bfloat16. "
        f"Readers that receive one version at once, on two cores: {readers}."
    )
    return "\n".join([*lines, "", last])


def main() -> None:
    given = parser(__doc__, "smaller tensors, fewer repetitions", "transfer").parse_args()
    torch.set_num_threads(1)
    before, rows, scaling = state(50 if given.quick else 400), [], {}
    with (
        tempfile.TemporaryDirectory() as name,
        local_store(Path(name)) as store,
        Screen() as screen,
    ):
        for share in (0.012, 0.033, 0.081):
            screen.tell(f"{share:.1%} changed")
            rows.append(compare(store, share, before, 3 if given.quick else 5, Path(name)))
            screen.show(line(rows[-1]))
        publisher = Publisher(store, "scaling")
        publisher.publish(1, before)
        publisher.publish(2, changed(before, 0.033, 1))
        for readers in READERS:
            screen.tell(f"{readers} readers")
            scaling[readers] = median(scale(store, readers) for _ in range(1 if given.quick else 3))
            screen.show(
                f"{readers} readers of one version, 3.3 % changed: {scaling[readers]:.2f} s, "
                f"{scaling[readers] / scaling[1] / readers:.2f} x of one after the other"
            )
    figures = {"updates": [asdict(row) for row in rows], "readers_s": scaling}
    save(given, "transfer", readme(rows, scaling), figures)


if __name__ == "__main__":
    main()
