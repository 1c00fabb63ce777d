"""Tests which data type the setting `engine.dtype = "auto"` selects on GPUs and on CPUs.

Only some CPUs have instructions for bfloat16.
"""

import pytest

from awares_platform.config.engine import EngineConfig
from awares_platform.runtime import processor


@pytest.mark.parametrize(
    ("on_cpu", "has_bfloat16", "dtype"),
    [
        (True, True, "bfloat16"),
        (True, False, "float32"),
        (False, False, "bfloat16"),  # The engine uses a GPU, so the CPU does not matter.
    ],
)
def test_auto_is_float32_only_where_bfloat16_has_no_instructions(
    monkeypatch: pytest.MonkeyPatch, on_cpu: bool, has_bfloat16: bool, dtype: str
) -> None:
    monkeypatch.setattr(processor, "on_cpu", lambda: on_cpu)
    monkeypatch.setattr(processor, "_has_bfloat16", lambda: has_bfloat16)
    assert processor.resolved(EngineConfig(dtype="auto")).dtype == dtype


def test_a_data_type_that_is_named_stays_on_every_processor() -> None:
    for dtype in ("bfloat16", "float16", "float32"):
        assert processor.resolved(EngineConfig(dtype=dtype)).dtype == dtype


def test_only_the_data_type_changes() -> None:
    settings = EngineConfig(dtype="auto", threads=3)
    found = processor.resolved(settings)
    assert found == settings.model_copy(update={"dtype": found.dtype})
    assert found.dtype in {"bfloat16", "float32"}
