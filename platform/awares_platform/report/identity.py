"""Formats the facts of a run: policy, data, dates, machine, version and settings."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from html import escape
from typing import Any

from awares_platform.config import PlatformConfig
from awares_platform.config.tracking import TrackingConfig
from awares_platform.report.records import RunRecord

_OPERATION = {
    *("run.name", "run.directory", "run.worker_logs", "store.endpoint", "store.retry_budget_s"),
    *("store.addressing", "store.encryption", "store.kms_key"),
    *(f"tracking.{name}" for name in TrackingConfig.model_fields),
}
"""Settings with no effect on results: names, places, logs and trackers."""


def identity(record: RunRecord) -> str:
    """Return a list of facts about the run, and a table of the settings that are not defaults.

    The result is "" if no job of the run has recorded its configuration.
    """
    if not record.config:
        return ""
    facts = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>"
        for name, value in _facts(record)
    )
    changed = differences(_defaults(), record.config)
    rows = "".join(
        f'<tr><th scope="row">{escape(key)}</th><td>{escape(value)}</td></tr>'
        for key, (_, value) in changed.items()
    )
    table = f"<table><tbody>{rows}</tbody></table>"
    title = f"Settings that differ from the mini setup: {len(changed)}"
    details = f'<details><summary>{title}</summary><div class="scroll">{table}</div></details>'
    return f'<dl class="facts">{facts}</dl>{details if changed else ""}'


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Return the settings that differ: each dotted key, with its values in `before` and `after`.

    A missing value is "–". Settings with no effect on results are left out.

    Example:
        differences({"grpo": {"steps": 40}}, {"grpo": {"steps": 80}})
        # {"grpo.steps": ("40", "80")}
    """
    first, second = dict(_flat(before)), dict(_flat(after))
    keys = [key for key in {**first, **second} if key not in _OPERATION]
    values = {key: (first.get(key, "–"), second.get(key, "–")) for key in keys}
    return {key: pair for key, pair in values.items() if pair[0] != pair[1]}


def _facts(record: RunRecord) -> Iterator[tuple[str, str]]:
    policy, data = record.config.get("policy", {}), record.config.get("data", {})
    rank = policy.get("lora_rank", 0)
    how = f"LoRA rank {rank}" if rank else "all weights of the language model"
    if policy.get("train_vision"):
        how += " and of the vision tower"
    yield "base policy", f"{policy.get('base', '–')}, {how}"
    yield "data set", f"{data.get('name', '–')} ({data.get('source', '–')})"
    if record.dates:
        yield "date", " to ".join(dict.fromkeys(map(_minute, record.dates)))
    if steps := record.metrics.get("grpo"):
        planned = record.config.get("grpo", {}).get("steps", "–")
        yield "GRPO", f"{steps[-1].step} of {planned} steps"
    if machine := record.versions.get("machine"):
        yield "machine", machine
    if release := record.versions.get("awares-train"):
        yield "awares-train", release


def _minute(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _defaults() -> dict[str, Any]:
    return PlatformConfig().model_dump(mode="json")


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", str(value)
