"""Starts vLLM: sets its environment and arguments, starts its process, and explains failures.

Most of the start time goes into imports of vLLM, in the caller's process and in the engine process.
Four measures shorten the start:
- On CPUs, Python's forkserver imports vLLM while the caller's process imports it, too. The engine
  process is then forked from the forkserver, and need not import vLLM again.
- On CPUs, the engine process runs a single worker itself, without another process.
- With engine.enforce_eager, the engine compiles nothing.
- With engine.kv_cache_gib, the engine does not profile its memory.
"""

import contextlib
import importlib
import json
import multiprocessing
import multiprocessing.forkserver
import os
import re
import sys
from collections.abc import Iterable, Iterator, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from awares.chat import ChatFormat
from awares.errors import AwaresError, PolicyError
from awares.family import ModelFamily, read_config
from awares.tokens import VisionLimits
from awares_platform.config.engine import EngineConfig
from awares_platform.runtime.processor import on_cpu
from awares_platform.training import fit

if TYPE_CHECKING:
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

LOG = "engine.log"
"""The name of the engine process's log file, in the engine's private directory."""
_PRELOAD = (
    "awares_platform.engine.process_title",  # Import this module before vLLM.
    "vllm.v1.engine.core",
    "vllm.v1.executor.uniproc_executor",
    "vllm.v1.worker.cpu_worker",
    "awares_platform.engine.worker",
)
_GIB = 1 << 30
_MEMORY = ("memory", "KV cache", "kv cache")
_CONSEQUENCES = ("Engine core initialization failed", "EngineDeadError", "CancelledError")
_CAUSE = re.compile(r"^(?:\w+\.)*\w*(?:Error|Exception): .+", re.MULTILINE)


class EngineError(AwaresError):
    """The engine did not start, died, or refused a request.

    The message names the setting to change, if a setting can help.
    """


def check_policy(policy: Path, family: ModelFamily, chat: ChatFormat) -> None:
    """Raise PolicyError unless the directory holds a policy of `family` that fits `chat`.

    The model's image token must be the image token of `chat`.
    """
    fit.check_directory(policy, family)
    image_id = read_config(policy).get(family.token_keys[family.chat.image])
    if image_id != chat.image_token_id:
        raise PolicyError(
            f"{policy}: the model's image token is {image_id}, the tokenizer's is "
            f"{chat.image_token_id}; model and tokenizer are of different policies"
        )


def check_memory(config: EngineConfig) -> None:
    """Raise EngineError if a CPU machine has less free memory than the KV cache needs."""
    if config.kv_cache_gib is None or not on_cpu():
        return
    available = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / _GIB
    with contextlib.suppress(OSError, StopIteration, ValueError):
        line = next(
            line
            for line in Path("/proc/meminfo").read_text("ascii").splitlines()
            if line.startswith("MemAvailable")
        )
        available = int(line.split()[1]) / (1 << 20)
    if config.kv_cache_gib > available:
        asked = f"engine.kv_cache_gib is {config.kv_cache_gib:g}"
        raise EngineError(
            f"no memory for the KV cache: {asked}, {available:.1f} GiB are free; lower it"
        )


def set_environment(config: EngineConfig) -> None:
    """Set the environment variables of vLLM and OpenMP for this process and the engine process.

    Call this function before either process imports vLLM.
    """
    os.environ.update(
        OMP_NUM_THREADS=str(config.threads),
        VLLM_CPU_OMP_THREADS_BIND="nobind",
        VLLM_ENGINE_READY_TIMEOUT_S=str(int(config.start_timeout_s)),
        VLLM_NO_USAGE_STATS="1",
    )
    # oneDNN keeps compiled kernels for each number of tokens in a batch. With its default of 1,024
    # kernels, the memory of a CPU engine grows by 300 MB during the first 20,000 requests.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")
    # This variable would override engine.kv_cache_gib, but accepts no fractions of a GiB.
    os.environ.pop("VLLM_CPU_KVCACHE_SPACE", None)
    # With this variable, vLLM computes an adapter's output on a second CUDA stream, and adds it
    # without `rounding.add_once`. Small updates would then be lost.
    os.environ.pop("VLLM_LORA_ENABLE_DUAL_STREAM", None)
    if config.enforce_eager:
        # Without this variable the first request compiles the sampler's helpers. The compilation
        # takes 10 s and needs a C++ compiler.
        os.environ["TORCHDYNAMO_DISABLE"] = "1"


def prepare(config: EngineConfig, family: ModelFamily) -> None:
    """Set the environment variables and, on CPUs, start Python's forkserver.

    vLLM forks its engine processes from the forkserver, which imports vLLM in the background.
    """
    set_environment(config)
    if on_cpu():
        multiprocessing.set_forkserver_preload(preloaded(family))
        with importing_as_here():
            multiprocessing.forkserver.ensure_running()


def preloaded(family: ModelFamily) -> list[str]:
    """Return the modules that the forkserver imports before it forks an engine process."""
    return [*_PRELOAD, family.vllm_module]


@contextlib.contextmanager
def importing_as_here() -> Iterator[None]:
    """Within the block, let a new forkserver import from the same directories as this process.

    Python 3.11's forkserver ignores sys.path, so it could import an installed package instead of
    this source checkout.
    """
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(path or os.getcwd() for path in sys.path)
    try:
        yield
    finally:
        del os.environ["PYTHONPATH"]
        if before is not None:
            os.environ["PYTHONPATH"] = before


def engine_args(
    policy: Path,
    config: EngineConfig,
    processor_options: dict[str, Any],
    seed: int,
    logging_file: Path,
    lora: dict[str, Any],
) -> "AsyncEngineArgs":
    """Return the arguments of the vLLM engine. This function imports vLLM.

    `lora` holds vLLM's arguments for adapters. It is empty for an engine without adapters.
    """
    from vllm.config import WeightTransferConfig
    from vllm.config.logging import LoggingConfig
    from vllm.engine.arg_utils import AsyncEngineArgs

    from awares_platform.engine.worker import BACKEND, EXTENSION

    return AsyncEngineArgs(
        model=str(policy),
        dtype=config.dtype,
        seed=seed,
        max_model_len=config.max_model_len,
        max_num_seqs=config.max_requests,
        max_num_batched_tokens=max(config.max_batched_tokens, config.max_model_len)
        if on_cpu()
        else config.max_batched_tokens,
        # vLLM's CPU runner crashes if a request with its own seed has a chunked prompt.
        enable_chunked_prefill=not on_cpu(),
        # vLLM's type annotation lists only the common block sizes, but vLLM accepts further sizes.
        block_size=config.block_size,  # pyright: ignore[reportArgumentType]
        gpu_memory_utilization=config.gpu_memory_utilization,
        kv_cache_memory_bytes=None
        if config.kv_cache_gib is None
        else int(config.kv_cache_gib * _GIB),
        tensor_parallel_size=config.tensor_parallel,
        distributed_executor_backend=_executor(config.tensor_parallel),
        enforce_eager=config.enforce_eager,
        enable_prefix_caching=True,
        limit_mm_per_prompt={"image": config.max_images, "video": 0},
        mm_processor_kwargs=processor_options,
        mm_processor_cache_gb=config.view_cache_gib,
        skip_mm_profiling=config.kv_cache_gib is not None,
        logprobs_mode="processed_logprobs",
        generation_config="vllm",
        worker_extension_cls=EXTENSION,
        weight_transfer_config=WeightTransferConfig(backend=BACKEND),
        logging_config=LoggingConfig(pylogging_config_file=str(logging_file)),
        disable_log_stats=True,
        **lora,
    )


def _executor(workers: int) -> Any:
    """Return the class that runs the workers of an engine, or None for vLLM's choice."""
    if workers > 1:
        from awares_platform.engine.executor import WorkersExecutor

        return WorkersExecutor
    if on_cpu():
        # By default vLLM on CPUs starts another process for the worker. This process would repeat
        # all imports.
        from vllm.v1.executor.uniproc_executor import UniProcExecutor

        return UniProcExecutor
    return None


def launch(
    policy: Path,
    config: EngineConfig,
    family: ModelFamily,
    limits: VisionLimits,
    seed: int,
    logging_file: Path,
    lora: dict[str, Any],
) -> "AsyncLLM":
    """Start the engine and wait until it is ready. The start takes seconds to minutes.

    The function does not catch vLLM's exceptions. The caller turns them into an EngineError with
    `explain`.
    """
    prepare(config, family)
    from vllm.v1.engine.async_llm import AsyncLLM

    options = family.processor_options(limits)
    arguments = engine_args(policy, config, options, seed, logging_file, lora)
    settings = arguments.create_engine_config()
    if on_cpu():
        # Even without chunked prefill, vLLM splits a prompt when the images of a batch use up the
        # encoder budget. The budget `ample` suffices for every batch.
        ample = settings.scheduler_config.max_num_seqs * settings.model_config.max_model_len
        settings.scheduler_config.max_num_encoder_input_tokens = (
            settings.scheduler_config.encoder_cache_size
        ) = ample
    with _forked_from_preload():
        return AsyncLLM.from_vllm_config(settings, disable_log_stats=True)


@contextlib.contextmanager
def _forked_from_preload() -> Iterator[None]:
    """On CPUs, make vLLM fork its engine process from Python's forkserver.

    The forkserver has already imported vLLM, which saves most of the start time. By default, vLLM
    spawns a new interpreter.
    """
    if not on_cpu():
        yield
        return
    starter: Any = importlib.import_module("vllm.v1.engine.utils")
    original = starter.get_mp_context
    starter.get_mp_context = lambda: multiprocessing.get_context("forkserver")
    try:
        yield
    finally:
        starter.get_mp_context = original


def write_logging(directory: Path) -> tuple[Path, Path]:
    """Write a file with the configuration of Python's logging for vLLM's processes.

    Return the path of this file and the path of the log. Errors also go to stderr.
    """
    settings, log = directory / "logging.json", directory / LOG
    handlers: dict[str, dict[str, Any]] = {
        "log": {"class": "logging.FileHandler", "filename": str(log), "formatter": "plain"},
        "stderr": {"class": "logging.StreamHandler", "level": "ERROR", "formatter": "plain"},
    }
    content = {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "plain": {"format": "%(asctime)s %(levelname)s %(processName)s %(name)s: %(message)s"}
        },
        "handlers": handlers,
        "loggers": {
            "vllm": {"handlers": [*handlers], "level": "INFO", "propagate": False},
            # This logger writes whole tensors at level ERROR, so it must not write to stderr.
            "vllm.logging_utils.dump_input": {"handlers": ["log"], "propagate": False},
        },
    }
    settings.write_text(json.dumps(content))
    return settings, log


def explain(error: BaseException, log: Path, config: EngineConfig) -> EngineError:
    """Return an EngineError for a failed start, with the cause from the engine process's log.

    vLLM's own exception only states that the start failed.
    """
    cause = find_cause(log) or f"{type(error).__name__}: {error}"
    if any(word in cause for word in _MEMORY):
        limit = (
            f"engine.kv_cache_gib is {config.kv_cache_gib:g}"
            if config.kv_cache_gib is not None
            else "engine.kv_cache_gib is none"
        )
        return EngineError(
            f"no memory for the KV cache: {limit}, engine.gpu_memory_utilization "
            f"{config.gpu_memory_utilization:g}, engine.max_model_len {config.max_model_len}; "
            f"change one of them. vLLM: {cause} (log: {log})"
        )
    return EngineError(f"the engine did not start: {cause} (log: {log})")


def find_cause(log: Path) -> str:
    """Return the last exception in a log that may be the cause of a failure, or "".

    Exceptions that vLLM raises only as a consequence of another exception are skipped.
    """
    text = log.read_text("utf-8", "replace") if log.exists() else ""
    causes = [
        cause for cause in _CAUSE.findall(text) if not any(mark in cause for mark in _CONSEQUENCES)
    ]
    return causes[-1] if causes else ""


def children(before: Set[int | None]) -> frozenset[int]:
    """Return the ids of this process's engine processes, except for the ids in `before`."""
    return frozenset(
        child.pid
        for child in multiprocessing.active_children()
        if child.pid and child.pid not in before and child.name.startswith("EngineCore")
    )


def kill_processes(processes: Iterable[int]) -> None:
    """Kill the engine processes with these ids and all their descendants, if they still run.

    A process that hangs cannot notice the death of its parent. The function therefore kills each
    descendant itself.
    """
    for process in children(frozenset()).intersection(processes):
        with contextlib.suppress(psutil.NoSuchProcess):
            engine = psutil.Process(process)
            for one in (*engine.children(recursive=True), engine):
                with contextlib.suppress(psutil.NoSuchProcess):
                    one.kill()
