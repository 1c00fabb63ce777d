"""Runs requests on vLLM's AsyncLLM, and holds new requests while the weights change.

After a failure, the engine refuses all requests.
"""

import asyncio
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL.Image import Image

from awares_platform.config.engine import EngineConfig
from awares_platform.engine.adapters import Adapter, Adapters
from awares_platform.engine.launch import EngineError, find_cause
from awares_platform.engine.usage import UsageMeter

if TYPE_CHECKING:
    from vllm import SamplingParams
    from vllm.lora.request import LoRARequest
    from vllm.outputs import RequestOutput
    from vllm.v1.engine.async_llm import AsyncLLM


_TRIES = 4
"""Maximum number of times that one request is sent to the engine's process."""
_ABORT_EVERY_S = 0.05
"""Seconds between two attempts to abort requests.

One attempt may not suffice, because vLLM may register a request after the attempt.
"""


class Requests:
    """Runs the requests of one engine.

    `log` is the log of the engine's process. `adapters` is None for an engine without adapters.
    `version` returns the version of the engine's weights. `meter` measures how busy the engine is.
    """

    def __init__(
        self,
        llm: "AsyncLLM",
        config: EngineConfig,
        log: Path,
        adapters: Adapters | None,
        version: Callable[[], int],
    ) -> None:
        self._llm, self._config, self._log = llm, config, log
        self._adapters, self._version = adapters, version
        self._serial = itertools.count()
        self._failure: str | None = None
        self._in_flight: set[asyncio.Task[Any]] = set()
        # The names of the requests in flight that `interrupt` would end.
        self._names: set[str] = set()
        self._interrupted = False
        self._open = asyncio.Event()
        self._open.set()
        self.meter = UsageMeter()

    @property
    def held(self) -> bool:
        """True while new requests must wait, because weights are being applied."""
        return not self._open.is_set()

    def hold(self) -> None:
        """Let new requests wait until `release`."""
        self._open.clear()

    def release(self) -> None:
        """Let the waiting requests start."""
        self._open.set()

    async def run(
        self,
        token_ids: Sequence[int],
        images: Sequence[Image],
        params: "SamplingParams",
        session: str,
        whole: bool = False,
    ) -> tuple["RequestOutput | None", Adapter | None]:
        """Run one request. Return its output and its adapter, which may be None.

        Unless `whole` is true, `interrupt` ends the request early, with fewer tokens or None as
        output. Raises EngineError if the engine refuses or fails.
        """
        # Wait until the new weights are applied. A request that starts earlier would read and fill
        # the prefix cache of the old version.
        await self._open.wait()
        self.check()
        if self._interrupted and not whole:
            return None, None
        name = f"{session}/{next(self._serial)}"
        task = asyncio.ensure_future(self._collect(token_ids, images, params, name))
        self._in_flight.add(task)
        task.add_done_callback(self._in_flight.discard)
        if not whole:
            self._names.add(name)
            task.add_done_callback(lambda _: self._names.discard(name))
        try:
            return await task
        except asyncio.CancelledError:
            # If `refuse` cancelled the task, `check` raises an error with the reason.
            self.check()
            raise

    async def _collect(
        self, token_ids: Sequence[int], images: Sequence[Image], params: "SamplingParams", name: str
    ) -> tuple["RequestOutput", Adapter | None]:
        if self._adapters is None:
            return await self._output(token_ids, images, params, name, self._version()), None
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
        """Run one request to its end. Send it again if the engine's process lacks an image.

        vLLM sends an image's pixels with only one of the requests that use the image. If that
        request fails, the others lack the pixels.
        """
        from vllm import TokensPrompt
        from vllm.exceptions import VLLMValidationError
        from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

        # With a salt per version, a request never reuses cached prefixes of another version.
        prompt = TokensPrompt(
            prompt_token_ids=[*token_ids],
            multi_modal_data={"image": [*images]} if images else {},
            cache_salt=str(version),
        )
        sampled = 0
        self.meter.began(len(token_ids))
        try:
            for _ in range(_TRIES):
                async for output in self._llm.generate(prompt, params, name, lora_request=lora):
                    if output.finished and output.outputs[0].finish_reason != "error":
                        sampled = len(output.outputs[0].token_ids)
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
        finally:
            self.meter.ended(sampled)
        raise EngineError(
            f"the engine could not prepare a request in {_TRIES} tries; {self._log} says why"
        )

    async def interrupt(self) -> None:
        """End all requests in flight, except for the requests that `run` runs with whole=True.

        Return when these requests have ended. Later requests return without any token.
        """
        self._interrupted = True
        while self._names:
            await self._llm.abort([*self._names])
            await asyncio.sleep(_ABORT_EVERY_S)

    def refuse(self, reason: str) -> None:
        """Refuse every request from now on, and cancel the requests in flight.

        For example, an engine with half-updated weights must not sample another token.
        """
        self._failure = self._failure or reason
        self._open.set()
        for task in self._in_flight:
            task.cancel()

    def check(self) -> None:
        """Raise EngineError if requests are refused, or if the engine's process is dead."""
        if self._failure is not None:
            raise EngineError(self._failure)
        if self._llm.errored:
            raise self._died()

    def _died(self) -> EngineError:
        return EngineError(
            f"the engine failed: {find_cause(self._log) or 'its process died'}; "
            f"restart it (log: {self._log})"
        )
