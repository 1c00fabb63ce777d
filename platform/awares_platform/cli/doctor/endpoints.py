"""Asks the judge model and the grounding model one question each, if the setup uses endpoints."""

import asyncio
import io
from collections.abc import Callable, Coroutine
from typing import Any

from PIL import Image

from awares.errors import DataError
from awares.labels import Case
from awares.mini.benchmark import generate_split
from awares_platform.cli.doctor.finding import Finding
from awares_platform.cli.doctor.visit import Visit
from awares_platform.config.curate import CurateConfig, EndpointConfig
from awares_platform.method.grounding import EndpointGrounding, check_grounding
from awares_platform.method.judge import EndpointJudge, build_judge, check_judge
from awares_platform.method.prompt_file import grounding_prompt, with_texts

JUDGE, GROUNDING = "judge", "grounding"
REACHABLE = (
    "Start the endpoint, correct its url or key, and let the network policy of the pods reach it."
)
Call = Callable[[Callable[[CurateConfig], list[Finding]], CurateConfig], list[Finding]]

_PATIENCE_S = 20.0
_UNREADABLE = "Use a model that follows the instructions, or raise max_tokens of its endpoint."


def check_endpoints(visit: Visit, curate: CurateConfig, call: Call) -> None:
    """Check the endpoints of the judge model and of the grounding model.

    `call` can run a check on another machine, which may lack the prompt files. This process
    therefore reads the files, as `awares curate` does.
    """
    # Let each check read only its own prompt file, so that a missing file fails only one check.
    judge = curate.model_copy(update={"grounding_prompt": ""})
    grounding = curate.model_copy(update={"judge_prompt": ""})
    visit.run(JUDGE, lambda: call(check_judge_endpoint, with_texts(judge)), REACHABLE, 30.0)
    visit.run(
        GROUNDING, lambda: call(check_grounding_endpoint, with_texts(grounding)), REACHABLE, 30.0
    )


def check_judge_endpoint(curate: CurateConfig) -> list[Finding]:
    """Ask the judge about two answers.

    Raises ConfigError if `curate.judge` cannot be used. Raises EndpointError if the endpoint does
    not answer or refuses the request.
    """
    check_judge(curate)
    if curate.judge != "endpoint":
        return [Finding(JUDGE, "skip", f"the judge {curate.judge!r} has no endpoint")]

    async def ask() -> None:
        hurried = curate.model_copy(update={"judge_endpoint": _hurried(curate.judge_endpoint)})
        judge = build_judge(hurried)
        assert isinstance(judge, EndpointJudge)
        async with judge:
            await judge(Case("What is 2 + 2?", truth="4", low_answer="5", full_answer="4"))

    return _asked(JUDGE, curate.judge_endpoint, ask)


def check_grounding_endpoint(curate: CurateConfig) -> list[Finding]:
    """Ask the grounding model about a generated scene.

    Raises ConfigError if `curate.grounding` cannot be used. Raises EndpointError if the endpoint
    does not answer or refuses the request.
    """
    check_grounding(curate)
    if curate.grounding != "endpoint":
        return [Finding(GROUNDING, "skip", f"the grounding {curate.grounding!r} has no endpoint")]
    [(data, sample)] = generate_split("test", 1, seed=0)
    image = Image.open(io.BytesIO(data)).convert("RGB")

    async def ask() -> None:
        endpoint = _hurried(curate.grounding_endpoint)
        prompt = grounding_prompt(curate)
        async with EndpointGrounding(endpoint, lambda _: image, prompt=prompt) as grounding:
            await grounding.boxes(sample)

    return _asked(GROUNDING, curate.grounding_endpoint, ask)


def _hurried(endpoint: EndpointConfig) -> EndpointConfig:
    """Return the settings of an endpoint with time limits of at most 20 seconds."""
    limits = {
        "timeout_s": min(endpoint.timeout_s, _PATIENCE_S),
        "retry_budget_s": min(endpoint.retry_budget_s, _PATIENCE_S),
    }
    return endpoint.model_copy(update=limits)


def _asked(
    check: str, endpoint: EndpointConfig, ask: Callable[[], Coroutine[Any, Any, None]]
) -> list[Finding]:
    """Call `ask` once, and return a finding with the name `check`.

    An unreadable reply causes only a warning, because other replies may be readable.
    """
    who = f"{endpoint.model} at {endpoint.url}"
    try:
        asyncio.run(ask())
    except DataError as error:
        return [Finding(check, "warn", f"{who} answers, but {error}", _UNREADABLE)]
    return [Finding(check, "pass", f"{who} answers")]
