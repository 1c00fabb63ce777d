"""Computes the memory of one rollout GPU, and the number of episodes that its KV cache holds."""

from dataclasses import dataclass, replace

from awares.errors import ConfigError
from awares_platform.config.engine import EngineConfig
from awares_platform.plan.assumptions import Assumptions
from awares_platform.plan.geometry import Geometry
from awares_platform.plan.lengths import Lengths
from awares_platform.plan.trainer import GIB, element_bytes

SLOTS = 2
"""Number of adapters that an engine holds. awares_platform.engine.adapters sets the same number."""
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""The LoRA ranks for which vLLM has slots. awares_platform.engine.adapters has the same list."""


@dataclass(frozen=True, slots=True)
class EngineMemory:
    """The memory of one GPU of an engine, and the limits of the engine's concurrent episodes.

    Sizes are in bytes.

    Example:
        EngineMemory(
            weights=1.66e10, adapters=8.1e7, encoder=5.9e7, workspace=1.7e9, scoring=2.9e9,
            overhead=3.2e9, kv=5.0e10, kv_token=57344, wanted=128, requests=64, typical=377,
            longest=108,
        )
    """

    weights: float
    """The policy's weights on this GPU."""
    adapters: float
    """vLLM's slots for LoRA adapters."""
    encoder: float
    """Cache of image features."""
    workspace: float
    """Peak of the temporary tensors of a forward pass."""
    scoring: float
    """Peak of the temporary tensors while the engine computes a canary's logprobs."""
    overhead: float
    """Memory of CUDA, NCCL, libraries and fragmentation."""
    kv: float
    """KV cache: the part of engine.gpu_memory_utilization that remains after the parts above.

    The size is at most engine.kv_cache_gib. It is negative if the parts above do not fit.
    """
    kv_token: int
    """One token in the KV cache."""
    wanted: int
    """Number of episodes that an actor sends to its engine at once."""
    requests: int
    """The largest number of episodes that the engine decodes at once (engine.max_requests)."""
    typical: int
    """Number of typical episodes with a crop request that fit into the KV cache."""
    longest: int
    """Number of episodes of engine.max_model_len tokens that fit into the KV cache."""

    @property
    def total(self) -> float:
        """The number of bytes that the engine takes on one GPU, including its KV cache."""
        return self.fixed + max(self.kv, 0.0)

    @property
    def fixed(self) -> float:
        """The number of bytes that the engine needs in addition to its KV cache."""
        return self.weights + self.adapters + self.encoder + self.temporary + self.overhead

    @property
    def temporary(self) -> float:
        """The peak bytes of temporary tensors.

        The engine frees the tensors of a forward pass before it computes a canary's logprobs. Only
        the larger of the two peaks therefore counts.
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
    """Compute the memory of one GPU of an engine that receives `wanted` episodes at once.

    `rank` is policy.lora_rank. The plan ignores that episodes share prompts in the prefix cache.

    Raises ConfigError if engine.tensor_parallel does not divide the number of attention heads.
    """
    parallel = settings.tensor_parallel
    if shape.heads % parallel:
        raise ConfigError(
            f"engine.tensor_parallel={parallel} does not divide the policy's {shape.heads} "
            "attention heads; choose a divisor of them"
        )
    element = element_bytes(settings.dtype)
    # The image encoder computes up to engine.max_batched_tokens visual tokens in one pass, and
    # never splits an image. Its cache has room for one pass.
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
    """Return the bytes of an engine's slots for LoRA adapters, or 0 if the engine has no slots.

    A float32 engine has no slots, because it merges adapters into its weights. Each slot has room
    for all linear layers of the language model.
    """
    if not rank or dtype == "float32":
        return 0
    # vLLM rounds the rank up to one of RANKS.
    rounded = min((size for size in RANKS if size >= rank), default=rank)
    return SLOTS * element_bytes(dtype) * shape.adapter_parameters(rounded, ())


def _workspace(settings: EngineConfig, shape: Geometry, element: int, images: int) -> float:
    """Return the peak bytes of the temporary tensors of one forward pass.

    `images` is the number of visual tokens of a pass.
    """
    # The activations of one decoder layer, per token.
    language = element * (4 * shape.hidden + 2 * shape.intermediate)
    # The activations of one vision block, per visual token.
    vision = element * shape.merge**2 * (4 * shape.v_hidden + 2 * shape.v_intermediate)
    # Two fp32 copies of the logits.
    logits = 2 * 4 * settings.max_requests * shape.vocab
    return settings.max_batched_tokens * language + images * vision + logits


def _scoring(settings: EngineConfig, shape: Geometry, element: int, lengths: Lengths) -> float:
    """Return the peak bytes of temporary tensors while the engine computes a canary's logprobs.

    A canary is a set of fixed prompts.
    """
    # The crop in the longest prompt is half of an image, twice as large as the usual crop.
    rows = min(settings.max_batched_tokens, lengths.called + lengths.crop)
    # vLLM holds logits and fp32 logprobs of two prompts, and one byte per logit of one prompt.
    return float(rows * shape.vocab * (2 * (element + 4) + 1))
