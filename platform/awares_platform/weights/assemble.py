"""From a manifest, its shards and the version below it to tensors, and the proof that they are what was published."""

import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from awares_platform.weights import codec
from awares_platform.weights.manifest import Manifest, Piece, TensorEntry, WeightsError, digest
from awares_platform.weights.shards import raw

State = Mapping[str, Tensor]


def assemble(
    manifest: Manifest, base: State, shards: Iterator[tuple[str, memoryview]], pool: ThreadPoolExecutor
) -> tuple[dict[str, Tensor], float]:
    """The tensors of the version, and the seconds of decoding. Tensors of which nothing changed are those of `base`; `base` stays as it is.

    Raises WeightsError for a piece that does not decode, and what `shards` raises. Nothing is verified yet.
    """
    state = {entry.name: _started(entry, base.get(entry.name)) for entry in manifest.tensors}
    held: dict[str, list[tuple[TensorEntry, Piece]]] = {}
    for entry in manifest.tensors:
        for piece in entry.pieces:
            if piece.length:
                held.setdefault(piece.shard, []).append((entry, piece))
            elif state[entry.name] is not base.get(entry.name):
                _slice(state[entry.name], piece).copy_(_slice(base[entry.name], piece))
    seconds = 0.0
    for shard, data in shards:
        started = time.perf_counter()
        jobs = [pool.submit(_decode, entry, piece, base, state, data) for entry, piece in held[shard]]
        for job in jobs:
            job.result()
        seconds += time.perf_counter() - started
    return state, seconds


def verify(manifest: Manifest, state: State, known: Manifest | None, proven: State, pool: ThreadPoolExecutor) -> None:
    """Raise WeightsError unless every piece hashes to what the manifest names.

    Tensors that are the very ones of `proven`, which was verified against `known`, are not hashed again.
    """
    results = {} if known is None else {entry.name: entry.result for entry in known.tensors}
    fresh = [
        (entry, piece)
        for entry in manifest.tensors
        if state[entry.name] is not proven.get(entry.name) or results.get(entry.name) != entry.result
        for piece in entry.pieces
    ]
    for job in [pool.submit(_verify, entry, piece, state, manifest.version) for entry, piece in fresh]:
        job.result()


def _started(entry: TensorEntry, base: Tensor | None) -> Tensor:
    """The base's tensor where nothing changed, else one to decode into."""
    fits = base is not None and base.dtype == getattr(torch, entry.dtype) and tuple(base.shape) == entry.shape
    if any(piece.length == 0 and piece.end > piece.start for piece in entry.pieces) and not fits:
        raise WeightsError(f"{entry.name} is a change to a tensor that the version below does not have in this shape ({entry.shape})")
    if base is not None and fits and not any(piece.length for piece in entry.pieces):
        return base
    return torch.empty(entry.shape, dtype=getattr(torch, entry.dtype))


def _decode(entry: TensorEntry, piece: Piece, base: State, state: State, data: memoryview) -> None:
    blob = data[piece.offset : piece.offset + piece.length]
    below = base.get(entry.name)
    fits = below is not None and below.shape == state[entry.name].shape and below.dtype == state[entry.name].dtype
    try:
        codec.decode(_slice(below, piece) if below is not None and fits else None, blob, out=_slice(state[entry.name], piece))
    except WeightsError as error:
        raise WeightsError(f"tensor {entry.name}, elements {piece.start} to {piece.end} ({piece.shard}): {error}") from error


def _verify(entry: TensorEntry, piece: Piece, state: State, version: int) -> None:
    if digest(raw(_slice(state[entry.name], piece))) != piece.blake3:
        raise WeightsError(
            f"tensor {entry.name} of version {version} ({piece.shard}, elements {piece.start} to {piece.end}) does not hash to what its "
            "manifest names"
        )


def _slice(tensor: Tensor, piece: Piece) -> Tensor:
    return tensor.reshape(-1)[piece.start : piece.end]
