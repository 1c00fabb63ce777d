"""The section [engine]: settings of one vLLM engine."""

from typing import Literal

from pydantic import Field, field_validator

from awares_platform.config.base import Section


class EngineConfig(Section):
    """Settings of every vLLM engine that a job starts."""

    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """Data type of the weights, the activations and the published versions. "auto" chooses float32
    on a CPU without bfloat16 instructions, and bfloat16 on all other devices."""
    threads: int = Field(default=1, ge=1)
    """OpenMP threads of the engine process on CPUs. Processes become very slow if their threads
    together exceed the cores."""
    kv_cache_gib: float | None = Field(default=1.0, gt=0)
    """Size of the KV cache in GiB. With "none" the cache takes the memory that the weights leave
    within `gpu_memory_utilization`."""
    gpu_memory_utilization: float = Field(default=0.9, gt=0, le=1)
    """Share of the device's memory that the engine may use if `kv_cache_gib` is none. On CPUs it is
    a share of the machine's memory."""
    max_model_len: int = Field(default=1024, ge=32)
    """Maximum length of a sequence in tokens. It covers the text, the visual tokens and the sampled
    tokens of all turns."""
    max_images: int = Field(default=11, ge=1)
    """Maximum number of images in one prompt. The default covers the low-resolution view and all
    ten crops."""
    view_cache_gib: float = Field(default=1.0, ge=0)
    """Largest size of the cache of processed views in the engine's process, in GiB of host memory.
    The engine gets the pixels of a cached view only once. With 0 there is no cache."""
    max_requests: int = Field(default=64, ge=1)
    """Maximum number of sequences that the engine decodes at once. Further requests wait inside the
    engine."""
    max_batched_tokens: int = Field(default=2048, ge=32)
    """Maximum number of tokens in one forward pass. On GPUs the engine prefills longer prompts in
    chunks. On CPUs the limit is at least `max_model_len`."""
    block_size: int = 32
    """Number of tokens in one block of the KV cache."""
    tensor_parallel: int = Field(default=1, ge=1)
    """Number of devices that share one engine's weights. The devices must be on one host."""
    enforce_eager: bool = True
    """Run without compilation and without CUDA graphs. On GPUs the value false makes the start
    slower and the generation faster."""
    stage_on_device: bool = False
    """Copy the changed tensors of a weight version to the GPU while the engine still generates.
    The pause then covers a copy within the GPU's memory, and no transfer over the PCIe bus.
    `gpu_memory_utilization` must leave room for a second copy of these tensors."""
    start_timeout_s: float = Field(default=300.0, gt=0)
    """Time limit for the start of an engine, in seconds."""
    load_timeout_s: float = Field(default=120.0, gt=0)
    """Time limit for applying a staged weight version, in seconds. It also limits each call to the
    engine process during the staging of a version."""
    canary_bound: float = Field(default=0.06, gt=0)
    """Largest accepted mean |dlogp|: the absolute difference between the logprobs of learner and
    engine, as a mean over the canary's tokens. With equal weights of the mini policy, different
    bfloat16 kernels cause a mean of 0.01 to 0.03. If the engine misses an update of 5 % in one kind
    of module, the mean is 0.08 (vision norms) to 3.5 (o_proj). The output projection of the vision
    attention is an exception: rounding hides a missed update below 15 %."""

    @field_validator("block_size")
    @classmethod
    def block_size_is_a_multiple_of_32(cls, value: int) -> int:
        """Refuse a block size that is not a multiple of 32, which vLLM's CPU attention needs."""
        if value <= 0 or value % 32:
            raise ValueError(f"engine.block_size must be a positive multiple of 32, got {value}")
        return value
