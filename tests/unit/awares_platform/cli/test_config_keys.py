"""Tests that `awares config` lists every key of each section, and nothing else."""

import json

import pytest

from awares.errors import ConfigError
from awares_platform.cli import main as cli
from awares_platform.cli.config_keys import keys, render
from awares_platform.config import PlatformConfig, load
from awares_platform.config import setup as sections


def test_every_key_is_listed_with_type_default_and_help() -> None:
    listed = keys()
    assert [key.key for key in listed] == [*sections._keys(PlatformConfig)]
    assert all(key.type and key.help for key in listed)
    judge = next(key for key in listed if key.key == "curate.judge_endpoint.retry_budget_s")
    assert (judge.type, judge.default) == ("number >= 0", 120.0)


@pytest.mark.parametrize(
    ("key", "kind", "default"),
    [
        ("run.directory", "path", "runs"),
        ("engine.kv_cache_gib", "number > 0, or none", 1.0),
        ("serve.port", "whole number >= 1 and <= 65535", 8000),
        ("serve.token_env", "text, or none", None),
        ("sft.zero_stage", "one of 0, 1, 2, 3", 2),
        ("sft.use_gpu", "true or false", False),
        ("serve.image_hosts", "list, each text", []),
        ("sft.selector", "table", {}),
    ],
)
def test_a_type_is_said_in_words(key: str, kind: str, default: object) -> None:
    (listed,) = keys(key)
    assert (listed.type, listed.default) == (kind, default)


def test_a_section_lists_only_its_keys() -> None:
    assert {key.key.partition(".")[0] for key in keys("sft")} == {"sft"}
    assert [key.key for key in keys("curate.judge_endpoint")][0] == "curate.judge_endpoint.url"


def test_an_unknown_section_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="grop: no such section or key; the nearest is grpo"):
        keys("grop")


def test_the_text_fits_100_columns_and_shows_defaults_as_toml(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    lines = render(keys()).splitlines()
    assert max(map(len, lines)) <= 100
    assert lines[:2] == ["[run]", '  run.name = "mini"   (text)']
    assert "  sft.use_gpu = false   (true or false)" in lines
    assert [line for line in lines if line.startswith("[")] == [
        f"[{section}]" for section in PlatformConfig.model_fields
    ]


def test_json_is_complete_and_its_defaults_are_those_of_the_mini_setup(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.config(json=True) == 0
    listed = json.loads(capsys.readouterr().out)
    assert set(listed[0]) == {"key", "type", "default", "help"}
    defaults = load("mini").model_dump(mode="json")
    for entry in listed:
        value = defaults
        for part in entry["key"].split("."):
            value = value[part]
        assert entry["default"] == value
