"""Assembles a weight version from the version's shards and its base version.

`assemble` decodes the pieces, and `verify` checks their hashes. Several processes, called readers,
may share the pieces.
"""

import time
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

from awares_platform.weights import codec
from awares_platform.weights.fetch import Span
from awares_platform.weights.manifest import Manifest, Piece, TensorEntry, WeightsError, digest
from awares_platform.weights.parallel import parallel_map
from awares_platform.weights.readers import ALONE, Readers, part
from awares_platform.weights.shards import raw

State = Mapping[str, Tensor]
Job = tuple[TensorEntry, Piece]
"""The manifest's entry of a tensor, and one piece of this tensor."""


def targets(manifest: Manifest, base: State, readers: Readers) -> dict[str, Tensor]:
    """Return the tensors that will hold the version, by name. All readers share these tensors.

    Unchanged tensors are the tensors of `base`. Every reader must call this function. Raises
    WeightsError if `base` lacks an unchanged piece.
    """
    kept = {entry.name: _kept(entry, base.get(entry.name)) for entry in manifest.tensors}
    changed = [entry for entry in manifest.tensors if kept[entry.name] is None]
    new = readers.empty([(getattr(torch, entry.dtype), entry.shape) for entry in changed])
    made = dict(zip((entry.name for entry in changed), new, strict=True))
    return {name: made[name] if tensor is None else tensor for name, tensor in kept.items()}


def assemble(
    manifest: Manifest,
    base: State,
    state: State,
    fetch: Callable[[Mapping[str, Span]], Iterator[tuple[str, memoryview]]],
    threads: int,
    readers: Readers = ALONE,
) -> tuple[int, float]:
    """Decode this reader's share of a version's pieces into `state`, which `targets` returns.

    `fetch` downloads one range of bytes per shard. Return the number of fetched bytes, and the
    seconds of decoding. Raises WeightsError for a damaged piece.
    """
    jobs = [(entry, piece) for entry in manifest.tensors for piece in entry.pieces]
    same = [
        (entry, piece)
        for entry, piece in jobs
        if not piece.length and state[entry.name] is not base.get(entry.name)
    ]
    for entry, piece in part(same, _elements, readers):
        _slice(state[entry.name], piece).copy_(_slice(base[entry.name], piece))
    by_shard: dict[str, list[Job]] = {}
    for job in part(_stored(jobs), _bytes, readers):
        by_shard.setdefault(job[1].shard, []).append(job)
    spans = {
        shard: (own[0][1].offset, max(piece.offset + piece.length for _, piece in own))
        for shard, own in by_shard.items()
    }
    seconds = 0.0
    for shard, data in fetch(spans):
        started = time.perf_counter()

        def decode(job: Job, data: memoryview = data, first: int = spans[shard][0]) -> None:
            _decode(*job, base, state, data, first)

        parallel_map(decode, by_shard[shard], threads)
        seconds += time.perf_counter() - started
    return sum(end - start for start, end in spans.values()), seconds


def verify(
    manifest: Manifest,
    state: State,
    known: Manifest | None,
    proven: State,
    threads: int,
    readers: Readers = ALONE,
) -> None:
    """Raise WeightsError unless `state` has the hashes that `manifest` lists.

    Each reader checks its share. A tensor in `proven` was verified against the manifest `known`,
    and is not checked again if both manifests list the same hashes for it.
    """
    hashes = {} if known is None else {entry.name: entry.hashes for entry in known.tensors}
    unproven = [
        (entry, piece)
        for entry in manifest.tensors
        if state[entry.name] is not proven.get(entry.name) or hashes.get(entry.name) != entry.hashes
        for piece in entry.pieces
    ]
    own = part(unproven, _elements, readers)
    parallel_map(lambda job: _verify(*job, state, manifest.version), own, threads)


def _kept(entry: TensorEntry, base: Tensor | None) -> Tensor | None:
    """Return the base version's tensor `base` if no element changes, and None otherwise.

    Raises WeightsError if a piece is unchanged, but `base` is None or has another dtype or shape.
    """
    dtype = getattr(torch, entry.dtype)
    fits = base is not None and base.dtype == dtype and tuple(base.shape) == entry.shape
    if any(piece.length == 0 and piece.end > piece.start for piece in entry.pieces) and not fits:
        raise WeightsError(
            f"{entry.name} is a delta, but its base version has no tensor of that name and "
            f"shape {entry.shape}"
        )
    return base if fits and not any(piece.length for piece in entry.pieces) else None


def _stored(jobs: list[Job]) -> list[Job]:
    """Return the pieces that have bytes in a shard, sorted by shard and then by offset."""
    stored = [(entry, piece) for entry, piece in jobs if piece.length]
    order = {shard: index for index, shard in enumerate(dict.fromkeys(p.shard for _, p in stored))}
    return sorted(stored, key=lambda job: (order[job[1].shard], job[1].offset))


def _bytes(job: Job) -> int:
    return job[1].length


def _elements(job: Job) -> int:
    return job[1].end - job[1].start


def _decode(
    entry: TensorEntry, piece: Piece, base: State, state: State, data: memoryview, first: int
) -> None:
    """Decode a piece into `state`. `data` begins at the byte `first` of the piece's shard."""
    blob = data[piece.offset - first :][: piece.length]
    below, new = base.get(entry.name), state[entry.name]
    if below is not None and (below.shape, below.dtype) != (new.shape, new.dtype):
        below = None
    try:
        old = None if below is None else _slice(below, piece)
        codec.decode(old, blob, out=_slice(new, piece))
    except WeightsError as error:
        where = f"tensor {entry.name}, elements {piece.start} to {piece.end} ({piece.shard})"
        raise WeightsError(f"{where}: {error}") from error


def _verify(entry: TensorEntry, piece: Piece, state: State, version: int) -> None:
    if digest(raw(_slice(state[entry.name], piece))) != piece.blake3:
        where = f"{piece.shard}, elements {piece.start} to {piece.end}"
        raise WeightsError(
            f"tensor {entry.name} of version {version} ({where}) does not have the hash that "
            "its manifest names"
        )


def _slice(tensor: Tensor, piece: Piece) -> Tensor:
    return tensor.reshape(-1)[piece.start : piece.end]
