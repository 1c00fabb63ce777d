"""The engine wraps vLLM's AsyncLLM in the interface `awares.generate.Generate`.

The engine can load new weights while it generates.

    episodes --GenerateRequest--> Engine --ids, images--> AsyncLLM  <--zmq-->  engine process
                                    |                  (this process)     worker.StoreTransfer
                                    |
    load_version(subscriber, v): prefetch (generating) -> pause -> apply -> resume -> canary

An engine in 16 bits plays the versions of a LoRA run as adapters beside its weights (adapters.py).

The engine returns the logprobs of the sampling distribution (vLLM's processed_logprobs). vLLM
applies temperature, top_p and the mask of `ChatFormat.blocked_ids` before normalisation. The mask
is a bias of minus infinity. A learner that recomputes the logprobs must mask the same ids and
divide by the same temperature: `awares.logprobs.policy_logprobs(..., temperature=, blocked_ids=)`.
At temperature 0 the engine returns the logprobs of temperature 1.
"""

import asyncio
import itertools
import math
import multiprocessing
import shutil
import tempfile
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from PIL.Image import Image

from awares.chat import ChatFormat
from awares.family import ModelFamily
from awares.generate import FinishReason, GenerateRequest, Generation, Sampling
from awares.tokens import VisionLimits
from awares_platform.config.engine import EngineConfig
from awares_platform.engine import canary as canaries
from awares_platform.engine import canary_change, launch
from awares_platform.engine.adapters import Adapter, Adapters, lora_options, stays_adapter
from awares_platform.engine.canary import Canary, Logprobs
from awares_platform.engine.exported import adapter_rank
from awares_platform.engine.launch import EngineError
from awares_platform.engine.load import Loader, LoadReport
from awares_platform.runtime.processor import resolved
from awares_platform.training.policy import interface
from awares_platform.weights.manifest import Manifest, WeightsError
from awares_platform.weights.subscribe import Subscriber

if TYPE_CHECKING:
    from vllm import SamplingParams
    from vllm.lora.request import LoRARequest
    from vllm.outputs import CompletionOutput, RequestOutput, WeightVersionSpan
    from vllm.v1.engine.async_llm import AsyncLLM

__all__ = ["Engine", "EngineError", "LoadReport"]

# Seconds until `stop` kills the engine process. A kill loses nothing, because the process holds no
# state to save. A regular exit of its interpreter takes several seconds.
_STOP_S = 1.0
T = TypeVar("T")


class Engine:
    """A running vLLM engine, created with `start`.

    Many requests may be in flight at once. Weight loads run one at a time.

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
        adapters: Adapters | None = None,
    ) -> None:
        self._llm, self._config, self._chat, self._logs, self._reads = (
            llm,
            config,
            chat,
            logs,
            reads,
        )
        self._version = 0
        # The canary logprobs of version 0, by the canary's digest.
        self._start: dict[str, Logprobs] = {}
        self._serial = itertools.count()
        self._adapters = adapters
        self._loader = Loader(llm, config.load_timeout_s, config.stage_on_device)
        self._failure: str | None = None
        self._in_flight: set[asyncio.Task[Any]] = set()
        self._open = asyncio.Event()
        self._open.set()
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
    ) -> Self:
        """Start an engine with the policy in a Hugging Face directory, as weight version 0.

        `limits` are the trainer's pixel limits. These limits override the limits of the directory's
        processor. `lora_rank` is policy.lora_rank of the run whose versions the engine will load,
        or 0 if the engine loads no adapters. Version 0 is the policy with the adapter in the PEFT
        directory `adapter`, if that is not None; only engines in 16 bits play one.

        Raises PolicyError if the directory holds no policy of `family` or has another tokenizer
        than `chat`. Raises EngineError if there is no memory for the KV cache, or if the start
        takes longer than engine.start_timeout_s.
        """
        config = resolved(config)
        launch.check_policy(policy, family, chat)
        launch.check_memory(config)
        logs = Path(tempfile.mkdtemp(prefix="awares-engine-"))
        before = {child.pid for child in multiprocessing.active_children()}
        settings, log = launch.write_logging(logs)
        lora_rank = lora_rank if adapter is None else adapter_rank(adapter)
        plays = stays_adapter(config.dtype, lora_rank)
        lora = lora_options(lora_rank) if plays else {}
        try:
            async with asyncio.timeout(config.start_timeout_s):
                llm = await asyncio.to_thread(
                    launch.launch, policy, config, family, limits, seed, settings, lora
                )
                home = logs / "adapters"
                adapters = Adapters(llm, policy, family, lora_rank, home) if plays else None
                engine = cls(llm, config, chat, logs, interface(policy), adapters)
                await llm.update_weight_version("0")
                if adapters is not None:
                    await adapters.start(adapter)
        except TimeoutError as error:
            launch.kill_children(before)
            raise EngineError(
                f"the engine was not up after {config.start_timeout_s:g} s; raise "
                f"engine.start_timeout_s or find the cause in {log}"
            ) from error
        except Exception as error:
            # vLLM raises many types of exception, and their texts rarely name the cause.
            raise launch.explain(error, log, config) from error
        return engine

    @property
    def version(self) -> int:
        """The number of the weight version that samples new tokens. `start` loads version 0."""
        return self._version

    async def __call__(self, request: GenerateRequest) -> Generation:
        """Sample one turn. Placeholder ids are never sampled.

        Raises EngineError if the engine fails or the prompt exceeds one of the engine's limits.
        """
        output, adapter = await self._run(
            request.token_ids, request.images, self._params(request.sampling), request.session
        )
        # vLLM's spans name the version of the base weights. An adapter does not change these.
        spans = output.outputs[0].weight_versions if adapter is None else None
        version = self._version if adapter is None else adapter.version
        return _generation(output.outputs[0], spans, version)

    async def score(self, token_ids: Sequence[int], images: Sequence[Image]) -> tuple[float, ...]:
        """Return the raw logprobs (temperature 1, no mask) of a sequence's text tokens.

        The result has one value per id that is not an image placeholder. The first value is 0,
        because no token precedes the first token. Scoring does not read the prefix cache. Raises
        EngineError in the same cases as `__call__`.
        """
        from vllm import SamplingParams

        output, _ = await self._run(
            token_ids,
            images,
            SamplingParams(max_tokens=1, prompt_logprobs=0, detokenize=False),
            "score",
        )
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

        Requests in flight continue with the new version. The result of a request names the version
        of each token. An engine that plays adapters differs: a request keeps the version with which
        it started, and new requests play the new version.

        Raises StoreError if the store fails. Raises WeightsError if the version cannot be fetched
        or verified, or belongs to another model. The engine is unchanged after these two errors.
        Raises EngineError if the version cannot be applied. Raises CanaryMismatch if the engine's
        logprobs, or their change since version 0, differ too much from the learner's. After an
        EngineError or a CanaryMismatch the engine refuses every request and must be restarted.
        """
        async with self._loading:
            await self.check()
            manifest = await asyncio.to_thread(subscriber.manifest, version)
            if canary is not None:
                canaries.expected(canary, manifest)
                await self._measure_start(canary, manifest)
            self._check_reads(manifest)
            self._check_form(manifest)
            loader = self._adapters or self._loader
            prefetched = await self._administer(
                loader.prefetch(subscriber, version), f"fetching version {version}", None
            )
            if self._adapters is None:
                self._open.clear()
            try:
                apply_s, pause_s = await self._administer(
                    loader.apply(version, prefetched.vision),
                    f"applying version {version}",
                    self._config.load_timeout_s,
                )
                self._version = version
                self._open.set()
                checked = (None, None) if canary is None else await self.verify(canary, manifest)
            except BaseException as error:
                # BaseException, because a cancelled load also leaves the weights half updated.
                self._poison(
                    f"version {version} was not applied whole ({error or type(error).__name__}); "
                    "restart the engine"
                )
                raise
            return LoadReport(version, prefetched, apply_s, pause_s, *checked)

    async def verify(self, canary: Canary, manifest: Manifest) -> tuple[float, float | None]:
        """Check the canary with the present weights, against the logprobs in `manifest`.

        Return the mean |dlogp|, and the slope of the change since version 0 if it is seen. Raises
        CanaryMismatch in the same cases as `load_version`.
        """
        measured = await self._scores(canary)
        dlogp = canaries.check(canary, manifest, measured, self._config.canary_bound)
        learned, start = canaries.start_of(canary, manifest), self._start.get(canary.digest)
        if learned is None or start is None:
            return dlogp, None
        found = canary_change.change(canaries.expected(canary, manifest), learned, measured, start)
        canary_change.check(found, manifest.version)
        return dlogp, found.slope if found.is_seen else None

    async def check(self) -> None:
        """Raise EngineError if the engine is dead or must be restarted."""
        self._check()
        if self._llm.errored:
            raise self._died()

    async def stop(self) -> None:
        """Stop the engine and its process. A second call does no harm."""
        self._poison("the engine is stopped")
        if self._llm.output_handler is not None:
            # A handler that still runs would report the engine's end as an error.
            self._llm.output_handler.cancel()
        await asyncio.to_thread(self._llm.shutdown, _STOP_S)
        shutil.rmtree(self._logs, ignore_errors=True)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *failure: object) -> None:
        await self.stop()

    def _params(self, sampling: Sampling) -> "SamplingParams":
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        return SamplingParams(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            max_tokens=sampling.max_tokens,
            seed=sampling.seed,
            stop_token_ids=[*self._chat.stop_ids],
            logit_bias=dict.fromkeys(self._chat.blocked_ids, -math.inf),
            # 0 asks for the logprob of the sampled token only.
            logprobs=0,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )

    async def _run(
        self,
        token_ids: Sequence[int],
        images: Sequence[Image],
        params: "SamplingParams",
        session: str,
    ) -> tuple["RequestOutput", Adapter | None]:
        """Run one request. Return its output and the adapter that it played, if any.

        The request fails at once if the engine is poisoned or stopped before the request ends.
        """
        # Wait until the pause ends. A request that starts earlier would get the old version's salt.
        await self._open.wait()
        self._check()
        task = asyncio.ensure_future(
            self._collect(token_ids, images, params, f"{session}/{next(self._serial)}")
        )
        self._in_flight.add(task)
        task.add_done_callback(self._in_flight.discard)
        try:
            return await task
        except asyncio.CancelledError:
            # If _poison cancelled the task, `_check` raises the reason.
            self._check()
            raise

    async def _collect(
        self, token_ids: Sequence[int], images: Sequence[Image], params: "SamplingParams", name: str
    ) -> tuple["RequestOutput", Adapter | None]:
        if self._adapters is None:
            return await self._output(token_ids, images, params, name, self._version), None
        with self._adapters.playing() as adapter:
            version, lora = adapter.version, adapter.request
            return await self._output(token_ids, images, params, name, version, lora), adapter

    async def _output(
        self,
        token_ids: Sequence[int],
        images: Sequence[Image],
        params: "SamplingParams",
        name: str,
        version: int,
        lora: "LoRARequest | None" = None,
    ) -> "RequestOutput":
        from vllm import TokensPrompt
        from vllm.exceptions import VLLMValidationError
        from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

        # With a salt per version, a request never reuses cached prefixes of another version.
        prompt = TokensPrompt(
            prompt_token_ids=[*token_ids],
            multi_modal_data={"image": [*images]},
            cache_salt=str(version),
        )
        try:
            async for output in self._llm.generate(prompt, params, name, lora_request=lora):
                if output.finished:
                    return output
        except (VLLMValidationError, ValueError) as error:
            limits = (
                f"engine.max_model_len is {self._config.max_model_len}, "
                f"engine.max_images {self._config.max_images}"
            )
            raise EngineError(
                f"the engine refused a prompt of {len(token_ids)} ids, {len(images)} images: "
                f"{error} ({limits})"
            ) from error
        except (EngineDeadError, EngineGenerateError) as error:
            if self._llm.errored:
                raise self._died() from error
            raise EngineError(f"the engine could not answer: {error.__cause__ or error}") from error
        raise EngineError("the engine ended a request without an output")

    async def _measure_start(self, canary: Canary, manifest: Manifest) -> None:
        """Score the canary with version 0, if the engine still plays it and the learner did so."""
        comparable = canaries.start_of(canary, manifest) is not None
        if comparable and self._version == 0 and canary.digest not in self._start:
            self._start[canary.digest] = await self._scores(canary)

    async def _scores(self, canary: Canary) -> Logprobs:
        rows = await asyncio.gather(*(self.score(ids, images) for ids, images in canary.prompts))
        return canaries.tails(rows, canary)

    def _check_reads(self, manifest: Manifest) -> None:
        """Raise WeightsError if learner and engine differ in image processor or chat template."""
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
        """Raise WeightsError if the version is an adapter that the engine would have to round."""
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
        """Await `work` and return its result. A failure of `work` becomes an EngineError.

        Only a WeightsError is raised without a change. `what` names the work in the error message.
        """
        try:
            async with asyncio.timeout(timeout_s):
                return await work
        except TimeoutError as error:
            raise EngineError(
                f"{what} took longer than engine.load_timeout_s = {self._config.load_timeout_s:g} s"
            ) from error
        except WeightsError:
            raise
        except Exception as error:
            raise EngineError(f"{what} failed: {error}") from error

    def _poison(self, reason: str) -> None:
        """Refuse every request from now on, and cancel the requests in flight.

        Half-updated weights must not sample another token.
        """
        self._failure = self._failure or reason
        self._open.set()
        for task in self._in_flight:
            task.cancel()

    def _died(self) -> EngineError:
        log = self._logs / "engine.log"
        return EngineError(
            f"the engine failed: {launch.find_cause(log) or 'its process died'}; "
            f"restart it (log: {log})"
        )

    def _check(self) -> None:
        if self._failure is not None:
            raise EngineError(self._failure)


def _generation(
    output: "CompletionOutput", spans: Sequence["WeightVersionSpan"] | None, version: int
) -> Generation:
    """Convert vLLM's output. `version` is the version of every token if there are no `spans`."""
    ids, entries = tuple(output.token_ids), output.logprobs or ()
    logprobs = tuple(
        float(entry[token].logprob) for token, entry in zip(ids, entries, strict=True) if entry
    )
    covered = tuple(int(span.version) for span in spans or () for _ in range(span.start, span.end))
    versions = covered or (version,) * len(ids)
    finish = FinishReason.STOP if output.finish_reason == "stop" else FinishReason.LENGTH
    return Generation(ids, logprobs, versions, finish)
