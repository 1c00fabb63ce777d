"""Computes the memory of one rollout GPU, and the number of episodes that its KV cache holds."""

from dataclasses import dataclass, replace

from awares.errors import ConfigError
from awares_platform.config.engine import EngineConfig
from awares_platform.plan.assumptions import Assumptions
from awares_platform.plan.geometry import Geometry
from awares_platform.plan.lengths import Lengths
from awares_platform.plan.trainer import GIB, element_bytes

SLOTS = 2
"""The adapters that an engine holds at once. awares_platform.engine.adapters has this number."""
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""The ranks for which vLLM has slots. awares_platform.engine.adapters has the same list."""


@dataclass(frozen=True, slots=True)
class EngineMemory:
    """The memory of one GPU of an engine, and the numbers of episodes that fit into its KV cache.

    `weights` to `kv` are bytes. `workspace` holds the tensors of a forward pass, and `scoring`
    those of a canary's logprobs. `adapters` is the size of vLLM's slots for LoRA adapters, and
    `encoder` the size of the cache of image features. `kv` is the size of the KV cache. It is
    negative if the other parts exceed the GPU's memory. `kv_token` is the size of one token in the
    cache, in bytes.

    The actor sends `wanted` episodes at once, and the engine decodes at most `requests` of them
    (engine.max_requests). `typical` is the number of typical episodes with a crop request that fit
    into the KV cache. `longest` is the number of sequences with engine.max_model_len tokens that
    fit into the KV cache.

    Example:
        EngineMemory(
            weights=1.66e10, adapters=8.1e7, encoder=5.9e7, workspace=1.7e9, scoring=2.9e9,
            overhead=3.2e9, kv=5.0e10, kv_token=57344, wanted=128, requests=64, typical=377,
            longest=108,
        )
    """

    weights: float
    adapters: float
    encoder: float
    workspace: float
    scoring: float
    overhead: float
    kv: float
    kv_token: int
    wanted: int
    requests: int
    typical: int
    longest: int

    @property
    def total(self) -> float:
        """The total number of bytes of the engine on one GPU."""
        return self.fixed + max(self.kv, 0.0)

    @property
    def fixed(self) -> float:
        """The number of bytes that the engine needs beside the KV cache."""
        return self.weights + self.adapters + self.encoder + self.temporary + self.overhead

    @property
    def temporary(self) -> float:
        """The peak bytes of temporary tensors.

        The tensors of a forward pass are freed before the engine computes a canary's logprobs.
        """
        return max(self.workspace, self.scoring)

    @property
    def at_once(self) -> int:
        """The number of episodes that the engine decodes at once. Further episodes wait."""
        return max(0, min(self.wanted, self.requests, self.typical))


def engine_memory(
    settings: EngineConfig,
    rank: int,
    wanted: int,
    shape: Geometry,
    lengths: Lengths,
    assumed: Assumptions,
) -> EngineMemory:
    """Compute the memory of one GPU of an engine that gets `wanted` episodes at once.

    `rank` is policy.lora_rank. The weights and the KV cache are divided among
    engine.tensor_parallel GPUs. Thanks to the prefix cache, the episodes of a group share the
    blocks of their prompt. The plan does not count this saving, so a real engine holds more
    episodes. Raises ConfigError if the number of attention heads is not a multiple of
    tensor_parallel.
    """
    parallel = settings.tensor_parallel
    if shape.heads % parallel:
        raise ConfigError(
            f"engine.tensor_parallel={parallel} does not divide the policy's {shape.heads} "
            "attention heads; choose a divisor of them"
        )
    element = element_bytes(settings.dtype)
    # The encoder splits no image. One pass of it, like its cache, therefore holds at least the
    # largest image, and as many visual tokens as a pass of the language model has tokens.
    images = max(settings.max_batched_tokens, lengths.full)
    uncached = EngineMemory(
        weights=element * shape.parameters / parallel,
        adapters=float(adapter_slots(settings.dtype, rank, shape)),
        encoder=float(element * shape.hidden * images),
        workspace=_workspace(settings, shape, element, images) / parallel,
        scoring=_scoring(settings, shape, element, lengths),
        overhead=assumed.overhead_gib * GIB,
        kv=0.0,
        kv_token=shape.kv_bytes(element) // min(parallel, shape.kv_heads),
        wanted=wanted,
        requests=settings.max_requests,
        typical=0,
        longest=0,
    )
    free = assumed.gpu_gib * settings.gpu_memory_utilization * GIB - uncached.fixed
    kv = free if settings.kv_cache_gib is None else min(settings.kv_cache_gib * GIB, free)
    tokens = int(max(kv, 0.0) // uncached.kv_token)
    return replace(
        uncached,
        kv=kv,
        typical=tokens // lengths.called,
        longest=tokens // settings.max_model_len,
    )


def adapter_slots(dtype: str, rank: int, shape: Geometry) -> int:
    """Return the bytes of an engine's slots for LoRA adapters, or 0 if it plays none.

    A float32 engine folds adapters into its weights. vLLM has a slot for every linear layer of the
    language model, whichever layers the run adapts. It rounds the rank up to one of `RANKS`.
    """
    if not rank or dtype == "float32":
        return 0
    rounded = min((size for size in RANKS if size >= rank), default=rank)
    return SLOTS * element_bytes(dtype) * shape.adapter_parameters(rounded, ())


def _workspace(settings: EngineConfig, shape: Geometry, element: int, images: int) -> float:
    """Return the peak bytes of the temporary tensors of one forward pass.

    These tensors are the activations of one decoder layer and of one vision block, and two fp32
    copies of the logits. A decoder layer computes engine.max_batched_tokens tokens, and a vision
    block the patches of `images` visual tokens. The logits cover engine.max_requests sequences.
    """
    language = element * (4 * shape.hidden + 2 * shape.intermediate)
    vision = element * shape.merge**2 * (4 * shape.v_hidden + 2 * shape.v_intermediate)
    logits = 2 * 4 * settings.max_requests * shape.vocab
    return settings.max_batched_tokens * language + images * vision + logits


def _scoring(settings: EngineConfig, shape: Geometry, element: int, lengths: Lengths) -> float:
    """Return the peak bytes of the logprobs of a canary, after its forward pass.

    The longest prompt of a canary has one crop of half a page. vLLM holds the logits and the fp32
    logprobs of two prompts, and one byte per logit to rank the tokens.
    """
    rows = min(settings.max_batched_tokens, lengths.called + lengths.crop)
    return float(rows * shape.vocab * (2 * (element + 4) + 1))
