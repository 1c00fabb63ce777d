"""Converts between the types of `awares.generate` and the types of vLLM."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from awares.chat import ChatFormat
from awares.generate import FinishReason, Generation, Sampling

if TYPE_CHECKING:
    from vllm import SamplingParams
    from vllm.outputs import CompletionOutput, WeightVersionSpan

_FINISH = {"stop": FinishReason.STOP, "abort": FinishReason.INTERRUPTED}


def sampling_params(sampling: Sampling, chat: ChatFormat) -> "SamplingParams":
    """Return vLLM's parameters for `sampling`. vLLM never samples the `blocked_ids` of `chat`."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

    grammar = sampling.grammar

    return SamplingParams(
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        max_tokens=sampling.max_tokens,
        seed=sampling.seed,
        stop_token_ids=[*chat.stop_ids],
        min_tokens=sampling.min_tokens,
        logit_bias=dict.fromkeys((*chat.blocked_ids, *sampling.blocked_ids), -math.inf),
        structured_outputs=None if grammar is None else StructuredOutputsParams(grammar=grammar),
        # 0 asks for the logprob of the sampled token only.
        logprobs=0,
        detokenize=False,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


def generation(
    output: "CompletionOutput",
    spans: Sequence["WeightVersionSpan"] | None,
    version: int,
    cached: int,
) -> Generation:
    """Convert vLLM's output to a Generation.

    Each span in `spans` gives the weight version of a range of tokens. If there are no spans, all
    tokens have `version`. `cached` is the number of prompt tokens from vLLM's prefix cache.
    """
    ids, entries = tuple(output.token_ids), output.logprobs or ()
    logprobs = tuple(
        float(entry[token].logprob) for token, entry in zip(ids, entries, strict=True) if entry
    )
    covered = tuple(int(span.version) for span in spans or () for _ in range(span.start, span.end))
    versions = covered or (version,) * len(ids)
    finish = _FINISH.get(output.finish_reason or "", FinishReason.LENGTH)
    return Generation(ids, logprobs, versions, finish, cached)
