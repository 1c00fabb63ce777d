"""Assembles a version: decodes its shards onto the base version, then verifies every hash.

manifest + base tensors + shards --assemble--> tensors --verify--> tensors as published
"""

import time
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from awares_platform.weights import codec
from awares_platform.weights.manifest import Manifest, Piece, TensorEntry, WeightsError, digest
from awares_platform.weights.parallel import parallel_map
from awares_platform.weights.shards import raw

State = Mapping[str, Tensor]


def assemble(
    manifest: Manifest, base: State, shards: Iterator[tuple[str, memoryview]], threads: int
) -> tuple[dict[str, Tensor], float]:
    """Decode the shards of a version. Deltas in the shards are applied to the tensors of `base`.

    Return the version's tensors and the seconds spent on decoding. Unchanged tensors are not
    copied: the result and `base` share them. The function does not modify `base` and does not
    verify hashes. Raises WeightsError for a damaged piece. The function does not catch errors of
    the iterator `shards`.
    """
    state = {entry.name: _target(entry, base.get(entry.name)) for entry in manifest.tensors}
    by_shard: dict[str, list[tuple[TensorEntry, Piece]]] = {}
    for entry in manifest.tensors:
        for piece in entry.pieces:
            if piece.length:
                by_shard.setdefault(piece.shard, []).append((entry, piece))
            elif state[entry.name] is not base.get(entry.name):
                _slice(state[entry.name], piece).copy_(_slice(base[entry.name], piece))
    seconds = 0.0
    for shard, data in shards:
        started = time.perf_counter()

        def decode(job: tuple[TensorEntry, Piece], data: memoryview = data) -> None:
            _decode(*job, base, state, data)

        parallel_map(decode, by_shard[shard], threads)
        seconds += time.perf_counter() - started
    return state, seconds


def verify(
    manifest: Manifest, state: State, known: Manifest | None, proven: State, threads: int
) -> None:
    """Raise WeightsError unless every piece of `state` has the hash that `manifest` lists for it.

    `proven` holds tensors that were verified earlier against the manifest `known`. The function
    skips a tensor that is the same object in `state` and `proven` and has the same hashes in both
    manifests.
    """
    hashes = {} if known is None else {entry.name: entry.hashes for entry in known.tensors}
    unproven = [
        (entry, piece)
        for entry in manifest.tensors
        if state[entry.name] is not proven.get(entry.name) or hashes.get(entry.name) != entry.hashes
        for piece in entry.pieces
    ]
    parallel_map(lambda job: _verify(*job, state, manifest.version), unproven, threads)


def _target(entry: TensorEntry, base: Tensor | None) -> Tensor:
    """Return `base` if no element changes. Otherwise return a new, uninitialised tensor."""
    dtype = getattr(torch, entry.dtype)
    fits = base is not None and base.dtype == dtype and tuple(base.shape) == entry.shape
    if any(piece.length == 0 and piece.end > piece.start for piece in entry.pieces) and not fits:
        raise WeightsError(
            f"{entry.name} is a delta, but its base version has no tensor of that name and "
            f"shape {entry.shape}"
        )
    if base is not None and fits and not any(piece.length for piece in entry.pieces):
        return base
    return torch.empty(entry.shape, dtype=dtype)


def _decode(entry: TensorEntry, piece: Piece, base: State, state: State, data: memoryview) -> None:
    blob = data[piece.offset : piece.offset + piece.length]
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
