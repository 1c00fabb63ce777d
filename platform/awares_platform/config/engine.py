"""[engine]: settings of one vLLM engine. CPU and GPU runs differ by these values only."""

from typing import Literal

from pydantic import Field, field_validator

from awares_platform.config.base import Section


class EngineConfig(Section):
    """Settings of every vLLM engine that a job starts."""

    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """Data type of the weights, the activations and the published versions. "auto" is float32 on a
    processor without bfloat16 instructions, and bfloat16 on every other one and on GPUs."""
    threads: int = Field(default=1, ge=1)
    """OpenMP threads of the engine process (CPU). If two processes both use every core, both become
    very slow."""
    kv_cache_gib: float | None = Field(default=1.0, gt=0)
    """Memory for the KV cache in GiB. With "none" it takes all memory that
    `gpu_memory_utilization` leaves beside the weights."""
    gpu_memory_utilization: float = Field(default=0.9, gt=0, le=1)
    """Share of a device's memory (on CPU: of the machine's) that the engine may use if
    `kv_cache_gib` is none."""
    max_model_len: int = Field(default=1024, ge=32)
    """Longest sequence in tokens: prompt, visual tokens and answer of both turns."""
    max_images: int = Field(default=11, ge=1)
    """Most images in one prompt: the low view and every possible crop."""
    max_requests: int = Field(default=64, ge=1)
    """Most sequences that the engine decodes at once; further requests wait inside the engine."""
    max_batched_tokens: int = Field(default=2048, ge=32)
    """Most tokens in one forward pass. GPUs prefill longer prompts in chunks. On CPU the limit is
    at least `max_model_len`."""
    block_size: int = 32
    """Tokens in one block of the prefix cache."""
    tensor_parallel: int = Field(default=1, ge=1)
    """Devices that share one engine's weights."""
    enforce_eager: bool = True
    """Run without compilation and CUDA graphs. On GPUs false makes the start slower and the
    generation faster."""
    stage_on_device: bool = False
    """Copy the changed tensors of a weight version to the GPU while the engine still generates.
    The pause then covers only a copy within the GPU's memory, instead of a transfer over the bus.
    `gpu_memory_utilization` must leave room for a second copy of these tensors."""
    start_timeout_s: float = Field(default=300.0, gt=0)
    """Longest wait in seconds for an engine to start."""
    load_timeout_s: float = Field(default=120.0, gt=0)
    """Longest wait in seconds until a staged weight version is applied. It also limits each answer
    of the engine process while it stages a version."""
    canary_bound: float = Field(default=0.06, gt=0)
    """Largest mean |dlogp| between learner and engine over the canary's tokens. On the mini policy
    the bfloat16 kernels of the two differ by 0.01 to 0.03. If one kind of module misses an update
    of 5 %, the mean is 0.08 (vision norms) to 3.5 (o_proj). The output projection of the vision
    attention is an exception: rounding hides a missed update below 15 %."""

    @field_validator("block_size")
    @classmethod
    def block_size_is_a_multiple_of_32(cls, value: int) -> int:
        """vLLM's CPU attention refuses blocks of 16."""
        if value <= 0 or value % 32:
            raise ValueError(f"engine.block_size must be a positive multiple of 32, got {value}")
        return value
