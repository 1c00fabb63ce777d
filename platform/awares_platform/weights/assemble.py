"""From a manifest, its shards and the version below it to tensors, and the proof that they are what was published."""

import time
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from awares_platform.weights import codec
from awares_platform.weights.each import each
from awares_platform.weights.manifest import Manifest, Piece, TensorEntry, WeightsError, digest
from awares_platform.weights.shards import raw

State = Mapping[str, Tensor]


def assemble(
    manifest: Manifest, base: State, shards: Iterator[tuple[str, memoryview]], threads: int
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
        each(lambda at: _decode(*at, base, state, data), held[shard], threads)  # noqa: B023, it is called before the next shard comes
        seconds += time.perf_counter() - started
    return state, seconds


def verify(
    manifest: Manifest, state: State, known: Manifest | None, proven: State, threads: int
) -> None:
    """Raise WeightsError unless every piece hashes to what the manifest names.

    Tensors that are the very ones of `proven`, which was verified against `known`, are not hashed again.
    """
    results = {} if known is None else {entry.name: entry.result for entry in known.tensors}
    fresh = [
        (entry, piece)
        for entry in manifest.tensors
        if state[entry.name] is not proven.get(entry.name)
        or results.get(entry.name) != entry.result
        for piece in entry.pieces
    ]
    each(lambda at: _verify(*at, state, manifest.version), fresh, threads)


def _started(entry: TensorEntry, base: Tensor | None) -> Tensor:
    """The base's tensor where nothing changed, else one to decode into."""
    fits = (
        base is not None
        and base.dtype == getattr(torch, entry.dtype)
        and tuple(base.shape) == entry.shape
    )
    if any(piece.length == 0 and piece.end > piece.start for piece in entry.pieces) and not fits:
        raise WeightsError(
            f"{entry.name} is a change to a tensor that the version below does not have in this shape ({entry.shape})"
        )
    if base is not None and fits and not any(piece.length for piece in entry.pieces):
        return base
    return torch.empty(entry.shape, dtype=getattr(torch, entry.dtype))


def _decode(entry: TensorEntry, piece: Piece, base: State, state: State, data: memoryview) -> None:
    blob = data[piece.offset : piece.offset + piece.length]
    below = base.get(entry.name)
    fits = (
        below is not None
        and below.shape == state[entry.name].shape
        and below.dtype == state[entry.name].dtype
    )
    try:
        codec.decode(
            _slice(below, piece) if below is not None and fits else None,
            blob,
            out=_slice(state[entry.name], piece),
        )
    except WeightsError as error:
        raise WeightsError(
            f"tensor {entry.name}, elements {piece.start} to {piece.end} ({piece.shard}): {error}"
        ) from error


def _verify(entry: TensorEntry, piece: Piece, state: State, version: int) -> None:
    if digest(raw(_slice(state[entry.name], piece))) != piece.blake3:
        raise WeightsError(
            f"tensor {entry.name} of version {version} ({piece.shard}, elements {piece.start} to {piece.end}) does not hash to what its "
            "manifest names"
        )


def _slice(tensor: Tensor, piece: Piece) -> Tensor:
    return tensor.reshape(-1)[piece.start : piece.end]
