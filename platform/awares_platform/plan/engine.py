"""Memory of one rollout GPU, and how many episodes its KV cache holds."""

from dataclasses import dataclass

from awares.errors import ConfigError
from awares_platform.config import PlatformConfig
from awares_platform.plan.assumptions import Assumptions
from awares_platform.plan.geometry import Geometry
from awares_platform.plan.lengths import Lengths
from awares_platform.plan.trainer import GIB


@dataclass(frozen=True, slots=True)
class EngineMemory:
    """Bytes on one GPU of an engine; `kv_token` is per token and GPU, `kv` what is left for the cache (negative: it does not fit).

    `wanted` episodes are sent to an engine at once; `typical` and `longest` are how many of that kind the cache holds.

    Example:
        EngineMemory(weights=1.66e10, workspace=1.7e9, overhead=3.2e9, kv=5.1e10, kv_token=57344, wanted=128, requests=64,
                     typical=377, longest=108)
    """

    weights: float
    workspace: float
    overhead: float
    kv: float
    kv_token: int
    wanted: int
    requests: int
    typical: int
    longest: int

    @property
    def total(self) -> float:
        """All that the engine takes."""
        return self.weights + self.workspace + self.overhead + max(self.kv, 0.0)

    @property
    def at_once(self) -> int:
        """Episodes that are really decoded side by side; the others wait inside the engine."""
        return max(0, min(self.wanted, self.requests, self.typical))


def engine_memory(
    config: PlatformConfig, shape: Geometry, lengths: Lengths, assumed: Assumptions
) -> EngineMemory:
    """An engine of engine.tensor_parallel GPUs; the weights and the KV cache are divided among them. A group's episodes share the blocks of
    their prompt (prefix cache), which is not counted: real engines hold more."""
    settings, parallel = config.engine, config.engine.tensor_parallel
    if shape.heads % parallel:
        raise ConfigError(
            f"engine.tensor_parallel={parallel} does not divide the policy's {shape.heads} attention heads; choose a divisor of them"
        )
    element = 4 if settings.dtype == "float32" else 2
    weights = element * shape.parameters / parallel
    workspace = _workspace(config, shape, element) / parallel
    overhead = assumed.overhead_gib * GIB
    free = assumed.gpu_gib * settings.gpu_memory_utilization * GIB - weights - workspace - overhead
    kv = free if settings.kv_cache_gib is None else min(settings.kv_cache_gib * GIB, free)
    token = shape.kv_bytes(element) // min(parallel, shape.kv_heads)
    tokens = int(max(kv, 0.0) // token)
    return EngineMemory(
        weights=weights,
        workspace=workspace,
        overhead=overhead,
        kv=kv,
        kv_token=token,
        wanted=config.grpo.groups_in_flight * config.grpo.group_size,
        requests=settings.max_requests,
        typical=tokens // lengths.called,
        longest=tokens // settings.max_model_len,
    )


def _workspace(config: PlatformConfig, shape: Geometry, element: int) -> float:
    """Peak of one forward pass: a layer's widths for engine.max_batched_tokens, the vision block's for as many image tokens, and fp32
    logits of every sequence twice."""
    tokens = config.engine.max_batched_tokens
    language = element * (4 * shape.hidden + 2 * shape.intermediate)
    vision = element * shape.merge**2 * (4 * shape.v_hidden + 2 * shape.v_intermediate)
    return tokens * (language + vision) + 2 * 4 * config.engine.max_requests * shape.vocab
