"""Validates the policy on held-out demonstrations, with teacher forcing.

The policy reads a demonstration up to each target token, and predicts this token.

Axes: B sequences, T tokens, V entries of the vocabulary, K target tokens in all B sequences.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed
from torch import Tensor

from awares.batch import Batch
from awares.logprobs import chosen_logprobs, sampled_logits


@dataclass(frozen=True, slots=True)
class TeacherForced:
    """The result of the validation on one demonstration.

    Example:
        TeacherForced(loss=1.5, weight=7.0, asks=True, right=True, first=271, likely=271)
    """

    loss: float
    """Weighted sum of the negative logprobs of the target tokens."""
    weight: float
    """Sum of the weights of the target tokens."""
    asks: bool
    """Whether the demonstration asks for crops."""
    right: bool
    """Whether the policy correctly predicts every token of the requests for crops."""
    first: int
    """The first target token."""
    likely: int
    """The policy's most likely token in place of `first`."""


@torch.no_grad()
def forced(
    model: Any, passes: Iterable[tuple[Batch, Tensor]], packed: bool
) -> Iterator[TeacherForced]:
    """Yield the result of each demonstration in `passes`.

    A pass is a batch and its mask (B, T) of request tokens. If `packed` is true, a batch becomes
    one row without padding. Sequences of weight 0 yield nothing.
    """
    for batch, tool_BT in passes:
        rows_K, positions_K, logits_KV = sampled_logits(model, batch, packed=packed)
        places = (rows_K, positions_K)
        ids_K, weights_K = batch.input_ids_BT[places], batch.weights_BT[places]
        likely_K, losses_K = logits_KV.argmax(1), -chosen_logprobs(logits_KV, ids_K) * weights_K
        wrong_K = tool_BT[places] & (likely_K != ids_K)
        for row in rows_K.unique().tolist():
            own_K = rows_K == row
            if (weight := float(weights_K[own_K].sum())) > 0:
                yield TeacherForced(
                    float(losses_K[own_K].sum()),
                    weight,
                    asks=bool(tool_BT[row].any()),
                    right=not bool(wrong_K[own_K].any()),
                    first=int(ids_K[own_K][0]),
                    likely=int(likely_K[own_K][0]),
                )


def figures(results: Sequence[TeacherForced]) -> dict[str, float]:
    """Return the metrics of all results, or no metrics if there is no result.

    - validation/loss is the weighted mean loss of all target tokens.
    - validation/questions is the number of demonstrations.
    - validation/decisions is the share of demonstrations in which the policy asks for crops if, and
      only if, the demonstration does.
    - validation/tool_turns counts only demonstrations that ask for crops. It is the share whose
      requests the policy predicts without a wrong token.
    """
    if not results:
        return {}
    # The policy counts as asking if its first token begins any demonstration that asks for crops.
    calls = {one.first for one in results if one.asks}
    asking = [one.right for one in results if one.asks]
    agreed = [(one.likely in calls) == one.asks for one in results]
    found = {
        "validation/loss": sum(one.loss for one in results) / sum(one.weight for one in results),
        "validation/decisions": sum(agreed) / len(agreed),
        "validation/questions": float(len(results)),
    }
    return {**found, "validation/tool_turns": sum(asking) / len(asking)} if asking else found


def of_all_ranks(results: Sequence[TeacherForced]) -> list[TeacherForced]:
    """Return the results of all ranks, in the same order on each rank."""
    gathered: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(gathered, list(results))
    return [one for part in gathered for one in part]
