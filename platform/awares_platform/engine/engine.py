"""Wraps vLLM's AsyncLLM in the interface `awares.generate.Generate`.

An engine can load new weights while it generates.

    episodes --GenerateRequest--> Engine --ids, images--> AsyncLLM  <--zmq-->  engine process
                                    |                  (this process)     worker.StoreTransfer
                                    |
    load_version(subscriber, v): prefetch (generating) -> pause -> apply -> resume -> canary

An engine in 16 bits keeps the adapters of a LoRA run apart from its weights (adapters.py).

The engine returns the logprobs of the sampling distribution (vLLM's processed_logprobs). vLLM
applies temperature, top_p and the mask of `ChatFormat.blocked_ids` before normalisation. The mask
is a bias of minus infinity. A learner that recomputes the logprobs must mask the same ids and use
the same temperature: `awares.logprobs.policy_logprobs(..., temperature=, blocked_ids=)`. At
temperature 0 the engine returns the logprobs of temperature 1.
"""

import asyncio
import multiprocessing
import shutil
import tempfile
from collections.abc import Coroutine, Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from PIL.Image import Image

from awares.chat import ChatFormat
from awares.family import ModelFamily
from awares.generate import FinishReason, GenerateRequest, Generation
from awares.tokens import VisionLimits
from awares_platform.config.engine import EngineConfig
from awares_platform.engine import launch
from awares_platform.engine.adapters import Adapters, lora_options, stays_adapter
from awares_platform.engine.canary import Canary
from awares_platform.engine.canary_check import CanaryCheck
from awares_platform.engine.convert import generation, sampling_params
from awares_platform.engine.launch import EngineError
from awares_platform.engine.load import Loader, LoadReport
from awares_platform.engine.requests import Requests
from awares_platform.engine.usage import EngineUsage
from awares_platform.runtime.processor import resolved
from awares_platform.store.errors import StoreError
from awares_platform.training.policy import interface
from awares_platform.weights.adapter import rank_in
from awares_platform.weights.manifest import Manifest, WeightsError
from awares_platform.weights.subscribe import Subscriber

if TYPE_CHECKING:
    from vllm.v1.engine.async_llm import AsyncLLM

__all__ = ["Engine", "EngineError", "LoadReport"]

# `stop` waits this many seconds before it kills the engine process. It does not wait for a regular
# exit, which takes longer, because the process holds no state to save.
_STOP_S = 1.0
T = TypeVar("T")


class Engine:
    """A running vLLM engine, created with `start`. Many requests may run at once.

    Example:
        engine = await Engine.start(policy, config.engine, chat, family=family, limits=limits)
        async with engine:
            prompt_ids = chat.first_turn(question)
            request = GenerateRequest(prompt_ids, (low_view,), Sampling(), session="ep-1")
            generation = await engine(request)
    """

    def __init__(
        self,
        llm: "AsyncLLM",
        config: EngineConfig,
        chat: ChatFormat,
        logs: Path,
        reads: tuple[str, str],
        base: Path,
        adapters: Adapters | None = None,
        processes: Set[int] = frozenset(),
    ) -> None:
        self._processes = processes
        self._llm, self._config, self._chat = llm, config, chat
        self._logs, self._reads = logs, reads
        self._version = 0
        self._canaries = CanaryCheck(self.score, config.canary_bound)
        self._adapters = adapters
        self._requests = Requests(llm, config, logs / launch.LOG, adapters, lambda: self._version)
        self._loader = Loader(llm, config.load_timeout_s, base, config.stage_on_device)
        self._loading = asyncio.Lock()

    @classmethod
    async def start(
        cls,
        policy: Path,
        config: EngineConfig,
        chat: ChatFormat,
        seed: int = 0,
        *,
        family: ModelFamily,
        limits: VisionLimits,
        lora_rank: int = 0,
        adapter: Path | None = None,
        base: Path | None = None,
    ) -> Self:
        """Start an engine with the policy in a Hugging Face directory, as weight version 0.

        - `limits` are the trainer's pixel limits.
        - `lora_rank` is policy.lora_rank of the run, or 0 without adapters.
        - `adapter` is the PEFT directory of version 0's adapter.
        - `base` is the policy to which later adapters are added, by default `policy`.

        Raises PolicyError if the directory does not fit `family` or `chat`. Raises EngineError if
        the engine does not start, or if a float32 engine gets an `adapter`. Raises WeightsError if
        `adapter` is unusable.
        """
        config = resolved(config)
        lora_rank = lora_rank if adapter is None else rank_in(adapter)
        plays = stays_adapter(config.dtype, lora_rank)
        if adapter is not None and not plays:
            raise EngineError(
                f"an engine in {config.dtype} plays no adapter beside its weights, and {adapter} "
                "would be ignored; start it with the folded policy of engine.exported.playable, "
                "or set engine.dtype to bfloat16"
            )
        launch.check_policy(policy, family, chat)
        launch.check_memory(config)
        logs = Path(tempfile.mkdtemp(prefix="awares-engine-"))
        before = {child.pid for child in multiprocessing.active_children()}
        settings, log = launch.write_logging(logs)
        lora = lora_options(lora_rank) if plays else {}
        try:
            async with asyncio.timeout(config.start_timeout_s):
                llm = await asyncio.to_thread(
                    launch.launch, policy, config, family, limits, seed, settings, lora
                )
                home = logs / "adapters"
                adapters = Adapters(llm, policy, family, lora_rank, home) if plays else None
                engine = cls(
                    llm,
                    config,
                    chat,
                    logs,
                    interface(policy),
                    base or policy,
                    adapters=adapters,
                    processes=launch.children(before),
                )
                await llm.update_weight_version("0")
                if adapters is not None:
                    await adapters.start(adapter)
        except TimeoutError as error:
            launch.kill_processes(launch.children(before))
            raise EngineError(
                f"the engine was not up after {config.start_timeout_s:g} s; raise "
                f"engine.start_timeout_s or find the cause in {log}"
            ) from error
        except Exception as error:
            # Find the cause in the log, because the text of vLLM's exception rarely names it.
            raise launch.explain(error, log, config) from error
        return engine

    @property
    def version(self) -> int:
        """The number of the newest weight version in the engine. `start` loads version 0."""
        return self._version

    @property
    def usage(self) -> EngineUsage:
        """The engine's busy time and token counts since its start."""
        return self._requests.meter.read()

    async def __call__(self, request: GenerateRequest) -> Generation:
        """Sample one turn. The engine never samples the id of an image placeholder.

        A turn that `interrupt` cuts short has FinishReason.INTERRUPTED. Raises EngineError if the
        engine fails or the prompt exceeds one of the engine's limits.
        """
        output, adapter = await self._requests.run(
            request.token_ids,
            request.images,
            sampling_params(request.sampling, self._chat),
            request.session,
        )
        if output is None:
            return Generation((), (), (), FinishReason.INTERRUPTED)
        # vLLM counts only loads of the base weights. Ignore its version if versions are adapters,
        # because it is then always 0.
        spans = output.outputs[0].weight_versions if adapter is None else None
        version = self._version if adapter is None else adapter.version
        return generation(output.outputs[0], spans, version, output.num_cached_tokens or 0)

    async def score(self, token_ids: Sequence[int], images: Sequence[Image]) -> tuple[float, ...]:
        """Return the raw logprobs (temperature 1, no mask) of a sequence's text tokens.

        The value of the first token is 0. Image placeholders have no value. Raises EngineError in
        the same cases as `__call__`.
        """
        from vllm import SamplingParams

        output, _ = await self._requests.run(
            token_ids,
            images,
            SamplingParams(max_tokens=1, prompt_logprobs=0, detokenize=False),
            "score",
            whole=True,
        )
        assert output is not None, "a whole request is not interrupted"
        assert output.prompt_token_ids is not None and output.prompt_logprobs is not None
        pairs = zip(output.prompt_token_ids, output.prompt_logprobs, strict=True)
        return tuple(
            entry[token].logprob if entry else 0.0
            for token, entry in pairs
            if token != self._chat.image_token_id
        )

    async def load_version(
        self, subscriber: Subscriber, version: int, canary: Canary | None = None
    ) -> LoadReport:
        """Load a published version while the engine generates.

        Requests in flight continue with the new version, or keep their version if it is an adapter.

        Raises StoreError if the store fails, and WeightsError if the version is unusable. Both
        errors leave the engine unchanged.

        Raises EngineError if the engine fails, and CanaryMismatch if the engine's logprobs differ
        too much from the learner's. After both errors the engine must be restarted.
        """
        async with self._loading:
            await self.check()
            manifest = await asyncio.to_thread(subscriber.manifest, version)
            if canary is not None:
                await self._canaries.measure_start(canary, manifest, self._version)
            self._check_reads(manifest)
            self._check_form(manifest)
            loader = self._adapters or self._loader
            prefetched = await self._administer(
                loader.prefetch(subscriber, version), f"fetching version {version}", None
            )
            if self._adapters is None:
                self._requests.hold()
            try:
                apply_s, pause_s = await self._administer(
                    loader.apply(version, prefetched.vision),
                    f"applying version {version}",
                    self._config.load_timeout_s,
                )
                self._version = version
                self._requests.release()
                checked = (None, None) if canary is None else await self.verify(canary, manifest)
            except BaseException as error:
                # A cancelled load also leaves the weights half updated, so catch BaseException.
                self._requests.refuse(
                    f"version {version} was not applied whole ({error or type(error).__name__}); "
                    "restart the engine"
                )
                raise
            return LoadReport(version, prefetched, apply_s, pause_s, *checked)

    async def verify(self, canary: Canary, manifest: Manifest) -> tuple[float, float | None]:
        """Compare the engine's logprobs of the canary with the learner's logprobs in `manifest`.

        Return the same values as `CanaryCheck.verify`. Raises CanaryMismatch in the same cases as
        `load_version`.
        """
        return await self._canaries.verify(canary, manifest)

    async def interrupt(self) -> None:
        """Let each turn in flight return with the tokens that it has sampled by now.

        Later calls of the engine return turns without tokens. Weight loads and `score` still work.
        """
        await self._requests.interrupt()

    async def check(self) -> None:
        """Raise EngineError if the engine is dead or must be restarted."""
        self._requests.check()

    async def ping(self, within_s: float) -> None:
        """Wait for an answer of the engine's process, unless the engine is applying weights.

        Raises EngineError if the engine is dead or must be restarted. An engine that does not
        answer within `within_s` seconds is also killed.
        """
        await self.check()
        if self._requests.held:
            return
        try:
            async with asyncio.timeout(within_s):
                await self._llm.is_sleeping()
        except TimeoutError as error:
            if self._requests.held:
                return
            self._requests.refuse(f"the engine hangs: it gave no answer for {within_s:g} s")
            launch.kill_processes(self._processes)
            raise EngineError(
                f"the engine gave no answer for {within_s:g} s; it is killed"
            ) from error
        except Exception as error:
            await self.check()
            raise EngineError(f"the engine could not answer: {error}") from error

    async def stop(self) -> None:
        """Stop the engine and its process. A second call does no harm."""
        self._requests.refuse("the engine is stopped")
        if self._llm.output_handler is not None:
            # A handler that still runs would report the engine's end as an error.
            self._llm.output_handler.cancel()
        await asyncio.to_thread(self._llm.shutdown, _STOP_S)
        shutil.rmtree(self._logs, ignore_errors=True)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *failure: object) -> None:
        await self.stop()

    def _check_reads(self, manifest: Manifest) -> None:
        """Raise WeightsError unless learner and engine have the same processor and tokenizer.

        The chat template belongs to the tokenizer. Skip a comparison if the manifest's digest is
        empty.
        """
        theirs = (manifest.processor, manifest.template)
        for what, own, other in zip(
            ("image processor", "tokenizer or chat template"), self._reads, theirs, strict=True
        ):
            if other and own != other:
                raise WeightsError(
                    f"version {manifest.version} belongs to a policy with another {what} "
                    f"({other[:12]}) than the engine's ({own[:12]}); start engine and learner from "
                    "one policy.base"
                )

    def _check_form(self, manifest: Manifest) -> None:
        """Raise WeightsError if the engine would have to add an adapter to its 16-bit weights."""
        folds = self._adapters is None and manifest.adapter is not None
        if folds and self._config.dtype != "float32":
            raise WeightsError(
                f"version {manifest.version} is an adapter, and this engine in "
                f"{self._config.dtype} was started for whole weights; set policy.lora_rank to the "
                "adapter's rank, or engine.dtype to float32"
            )

    async def _administer(
        self, work: Coroutine[Any, Any, T], what: str, timeout_s: float | None
    ) -> T:
        """Await `work` and return its result.

        Raises each WeightsError and StoreError of `work` unchanged. Raises EngineError for every
        other failure, and after `timeout_s` seconds. `what` names the work in the error message.
        """
        try:
            async with asyncio.timeout(timeout_s):
                return await work
        except TimeoutError as error:
            # The engine must be restarted. Kill its processes, because they may hang.
            launch.kill_processes(self._processes)
            raise EngineError(
                f"{what} took longer than engine.load_timeout_s = {self._config.load_timeout_s:g} s"
            ) from error
        except (WeightsError, StoreError):
            raise
        except Exception as error:
            raise EngineError(f"{what} failed: {error}") from error
