"""Runs the forward pass of a policy over a batch, and turns the logits into logprobs.

Axes of the tensors:
    B  sequences
    T  tokens, padded on the right
    K  sampled tokens of all sequences
    V  vocabulary
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from awares.batch import Batch


def policy_logprobs(
    model: Any,
    batch: Batch,
    *,
    temperature: float = 1.0,
    blocked_ids: Sequence[int] = (),
    packed: bool = False,
) -> Tensor:
    """Run one forward pass and return logprobs_BT of the sampled tokens, with gradient.

    Other positions hold 0. `temperature` and `blocked_ids` must be the values with which the engine
    sampled. `sampled_logits` explains `packed`.
    """
    rows_K, positions_K, logits_KV = sampled_logits(model, batch, packed=packed)
    ids_K = batch.input_ids_BT[rows_K, positions_K]
    chosen_K = chosen_logprobs(logits_KV, ids_K, temperature, blocked_ids)
    return chosen_K.new_zeros(batch.input_ids_BT.shape).index_put((rows_K, positions_K), chosen_K)


def sampled_logits(
    model: Any, batch: Batch, *, packed: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Run one forward pass, and return rows_K, positions_K and logits_KV of the sampled tokens.

    Sampled token k is input_ids_BT[rows_K[k], positions_K[k]], and logits_KV[k] predicts it. Only
    these K tokens get logits, because the logits of all tokens would take most of the memory.

    If `packed` is true, one row holds all sequences without padding. The model's attention must
    then not connect tokens of different sequences.
    """
    inner = getattr(model, "module", model)
    rows_K, before_K = batch.action_mask_BT[:, 1:].nonzero(as_tuple=True)
    places = (rows_K, before_K)
    inputs = batch.forward_inputs()
    if packed:
        real_BT = batch.attention_mask_BT.bool()
        packed_places_BT = (real_BT.flatten().cumsum(0) - 1).view(real_BT.shape)
        places = (torch.zeros_like(rows_K), packed_places_BT[places])
        inputs = _packed_inputs(inner, inputs)

    def select(_: Any, hidden: tuple[Tensor]) -> tuple[Tensor]:
        return (hidden[0][places],)

    with inner.get_output_embeddings().register_forward_pre_hook(select):
        logits_KV = model(**inputs, use_cache=False).logits
    return rows_K, before_K + 1, logits_KV


def _packed_inputs(model: Any, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the inputs of a packed pass: one row of all sequences, without an attention mask.

    transformers expects the text position as the first of four axes. This position restarts at 0
    where a sequence starts.
    """
    real_BT = inputs.pop("attention_mask").bool()
    names = ("input_ids", "mm_token_type_ids")
    positions_3BT, _ = model.model.get_rope_index(
        **{name: inputs[name] for name in names},
        image_grid_thw=inputs["image_grid_thw"],
        attention_mask=real_BT.int(),
    )
    text_1BT = torch.arange(real_BT.shape[1], device=real_BT.device).expand(1, *real_BT.shape)
    positions_4BT = torch.cat([text_1BT, positions_3BT])
    packed = {name: inputs[name][real_BT].unsqueeze(0) for name in names}
    return {**inputs, **packed, "position_ids": positions_4BT[:, real_BT].unsqueeze(1)}


def token_logprobs(
    logits_BTV: Tensor,
    input_ids_BT: Tensor,
    *,
    temperature: float = 1.0,
    blocked_ids: Sequence[int] = (),
) -> Tensor:
    """Return logprobs_BT in float32. Position t holds log p(token t | tokens before t).

    Position 0 holds 0. The rows are computed one by one to save memory, which works only under
    `torch.no_grad`. For the gradient, prefer `policy_logprobs`.
    """
    rows = [
        chosen_logprobs(logits_TV[:-1], ids_T[1:], temperature, blocked_ids)
        for logits_TV, ids_T in zip(logits_BTV, input_ids_BT, strict=True)
    ]
    chosen = torch.stack(rows)
    return torch.cat([chosen.new_zeros(len(rows), 1), chosen], dim=1)


def chosen_logprobs(
    logits_KV: Tensor, ids_K: Tensor, temperature: float = 1.0, blocked_ids: Sequence[int] = ()
) -> Tensor:
    """Return logprobs_K in float32: the logprob of one id per row of logits.

    The logprob is the id's logit minus the row's logsumexp. No softmax tensor is built.
    """
    scaled_KV = logits_KV.float() / temperature
    if blocked_ids:
        scaled_KV = scaled_KV.index_fill(
            1, torch.tensor(list(blocked_ids), device=scaled_KV.device), float("-inf")
        )
    return scaled_KV.gather(1, ids_K.unsqueeze(1)).squeeze(1) - scaled_KV.logsumexp(1)
