"""Tests which methods of vLLM the loader calls, in which order, and which caches it clears."""

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest

from awares_platform.engine.load import Loader

# The tests are marked as slow only because they import vLLM.
pytestmark = pytest.mark.slow

APPLIED = ["pause keep", "apply_version 1"]


class Llm:
    """A fake of vLLM's AsyncLLM that records the loader's calls.

    If `fails` is not empty, a call whose name starts with `fails` raises RuntimeError.
    """

    def __init__(self, fails: str = "") -> None:
        self.calls: list[str] = []
        self.engine_core, self._fails = self, fails

    async def pause_scheduler_async(self, mode: str, clear_cache: bool) -> None:
        assert not clear_cache
        self._call(f"pause {mode}")

    async def collective_rpc(self, method: str, args: tuple[int]) -> None:
        self._call(f"{method} {args[0]}")

    async def update_weight_version(self, version: str) -> None:
        self._call(f"version {version}")

    async def reset_encoder_cache(self) -> None:
        self._call("reset encoder cache")

    async def resume_generation(self) -> None:
        self._call("resume")

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if self._fails and name.startswith(self._fails):
            raise RuntimeError(name)


@pytest.mark.parametrize("vision", [False, True])
def test_the_encoder_cache_goes_when_the_vision_tower_changed(vision: bool) -> None:
    llm = Llm()
    apply_s, pause_s = asyncio.run(Loader(cast(Any, llm), 10.0, Path()).apply(1, vision))
    assert 0 <= apply_s <= pause_s
    assert ("reset encoder cache" in llm.calls) is vision


def test_generation_goes_on_after_everything_else() -> None:
    llm = Llm()
    asyncio.run(Loader(cast(Any, llm), 10.0, Path()).apply(1, vision=True))
    assert llm.calls == [*APPLIED, "reset encoder cache", "version 1", "resume"]


@pytest.mark.parametrize("count", range(1, len(APPLIED) + 1))
def test_a_load_that_fails_leaves_the_engine_paused(count: int) -> None:
    llm = Llm(fails=APPLIED[count - 1])
    with pytest.raises(RuntimeError):
        asyncio.run(Loader(cast(Any, llm), 10.0, Path()).apply(1, vision=True))
    assert llm.calls == APPLIED[:count]
