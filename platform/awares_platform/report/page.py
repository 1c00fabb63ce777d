"""Assembles the HTML page of a report. The page contains its style sheet, images and script."""

import logging
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from awares.errors import AwaresError
from awares_platform.config import PlatformConfig
from awares_platform.config.method import MethodConfig
from awares_platform.config.run import RunConfig
from awares_platform.evaluate.results import NAMES, claims, unpaid
from awares_platform.grpo.group import Group
from awares_platform.report.comparison import comparison
from awares_platform.report.curves import curves
from awares_platform.report.episodes import Fetch, episode_cards
from awares_platform.report.files import RunFiles, require_run
from awares_platform.report.identity import identity
from awares_platform.report.journal_sample import sample_groups
from awares_platform.report.records import DRAWN, RunRecord, read_run
from awares_platform.report.shift import shift
from awares_platform.report.tables import (
    decisions_table,
    kinds_table,
    labels_table,
    results_table,
)
from awares_platform.report.times import times_table
from awares_platform.report.tradeoff import tradeoff
from awares_platform.report.viewer import title, viewer
from awares_platform.store import ObjectStore

log = logging.getLogger(__name__)


def run(
    config: PlatformConfig, fetch: Fetch, against: str = "", version: int | None = None
) -> Path:
    """Write <run.directory>/<run.name>/report.html, and return the path of this file.

    `fetch` reads an image by its hash. `against` names another run to compare with. `version` is a
    weight version to show.

    Raises DataError for an unknown run and for a damaged file.
    """
    store, name = ObjectStore.from_config(config.store), config.run.name
    record = _record(store, config.run, name)
    other = _record(store, config.run, against) if against else None
    path = config.run.directory / name / "report.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    groups = sample_groups(store, name, version)
    page = render(record, fetch, config.method, groups, other)
    path.write_text(page, encoding="utf-8")
    return path


def _record(store: ObjectStore, run: RunConfig, name: str) -> RunRecord:
    require_run(store, run.model_copy(update={"name": name}))
    with TemporaryDirectory(prefix="awares-report-") as cache:
        return read_run(RunFiles(store, run.directory, name, Path(cache)), name, run.seed)


def render(
    record: RunRecord,
    fetch: Fetch,
    method: MethodConfig,
    groups: Sequence[Group] = (),
    other: RunRecord | None = None,
) -> str:
    """Return the report as one HTML document, without sections for jobs that have not run.

    `groups` are groups of the run's journal. If `other` is a record of another run, the report
    compares the two runs.
    """
    style = files("awares_platform.report").joinpath("style.css").read_text("utf-8")
    sections = [
        _headline(record),
        identity(record),
        _results(record),
        _comparison(record, other),
        _shift(record),
        _curves(record, other),
        _episodes(record, fetch, method),
        _trajectories(record, groups, fetch),
        _times(record),
        _footer(record),
    ]
    body = "\n".join(filter(None, sections))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>AwaRes · {escape(record.name)}</title><style>{style}</style></head>\n"
        f"<body><main>\n{body}\n</main></body></html>\n"
    )


def _headline(record: RunRecord) -> str:
    tiles = "".join(
        f'<div class="tile"><b>{value}</b><span>{escape(note)}</span></div>'
        for value, note in _tiles(record.policies)
    )
    run = f"run {escape(record.name)} · seed {record.seed}"
    return (
        f"<header><p class='eyebrow'>awares-train · {run}</p>"
        "<h1>Look where it matters</h1><p class='lead'>"
        "A policy that sees a low-resolution view, asks for the crops that it needs, "
        f'and answers.</p><div class="tiles">{tiles}</div></header>'
    )


def _tiles(policies: dict[str, dict[str, Any]]) -> list[tuple[str, str]]:
    """Return the figures at the top of the page, each as a value and a note.

    They are accuracy, RTR and requests of "awares", and the RTR of "escalate" if it was evaluated.
    Without "awares", there are none.
    """
    awares = policies.get("awares")
    if awares is None:
        return []
    baselines = ", ".join(
        f"{policies[name]['accuracy']:.1%} at {name}"
        for name in ("full", "low")
        if name in policies
    )
    accuracy = f"accuracy ({baselines} resolution)" if baselines else "accuracy"
    tiles = [
        (f"{awares['accuracy']:.1%}", accuracy),
        (f"{awares['rtr_token']:.0%}", "of the full image's visual tokens"),
        (f"{awares['call_rate']:.0%}", "of questions asked for crops"),
    ]
    if "escalate" in policies:
        share = f"{policies['escalate']['rtr_token']:.0%}"
        tiles.append((share, "of tokens if every request were a second pass on the whole image"))
    return tiles


def _results(record: RunRecord) -> str:
    if not record.policies:
        return ""
    questions = max(row["n"] for row in record.policies.values())
    detail = {
        "By kind of question": kinds_table(record.policies),
        "By what the question needs": labels_table(record.policies),
        "Decisions: when and where to look": decisions_table(record.policies),
    }
    tables = [f"<h3>{escape(title)}</h3>{table}" for title, table in detail.items() if table]
    return (
        f"<section><h2>Results</h2><p>{questions:,} held-out questions, greedy sampling. "
        "Whiskers are 95 % bootstrap intervals. Up and to the left is better. "
        "RTR, the retained token ratio, is the number of visual tokens over that of the full "
        f"image. {unpaid(record.labels)}</p>"
        f'<div class="figure">{tradeoff(record.policies)}</div>'
        f"<p>{claims(record.policies)}</p>"
        f"{results_table(record.policies)}{''.join(tables)}</section>"
    )


def _shift(record: RunRecord) -> str:
    bars = shift(record.policies, record.labels)
    if not bars:
        return ""
    return (
        "<section><h2>What reinforcement changed</h2>"
        "<p>Share of held-out questions by the first request of the policy. "
        f"A request for two crops counts for both.</p>{bars}</section>"
    )


def _comparison(record: RunRecord, other: RunRecord | None) -> str:
    if other is None:
        return ""
    return (
        f"<section><h2>Compared with {escape(other.name)}</h2><p>Each cell states how much "
        f"{escape(record.name)} differs from {escape(other.name)}, and the two figures.</p>"
        f"{comparison(record, other)}</section>"
    )


def _curves(record: RunRecord, other: RunRecord | None) -> str:
    drawn = curves(record.metrics, {} if other is None else other.metrics)
    legend = f"<p>The dashed lines belong to {escape(other.name)}.</p>" if other else ""
    if not drawn:
        return ""
    return f'<section><h2>Training</h2>{legend}<div class="charts">{drawn}</div></section>'


def _episodes(record: RunRecord, fetch: Fetch, method: MethodConfig) -> str:
    name = next((name for name in DRAWN if record.episodes.get(name)), None)
    if name is None:
        return ""
    try:
        cards = episode_cards(record.episodes[name], fetch, method)
    except AwaresError as error:
        log.warning("the report has no episodes: %s", error)
        fault = f"The images could not be read: {escape(str(error))}"
        return f"<section><h2>Episodes</h2><p>{fault}</p></section>"
    return (
        f"<section><h2>Episodes</h2><p>{escape(NAMES[name])} on held-out questions, chosen for "
        "variety: most ask for crops, and some fail. The left picture is the first view. The "
        "right picture is the image with the requested boxes; a dashed frame marks the evidence."
        f'</p><div class="episodes">{cards}</div></section>'
    )


def _trajectories(record: RunRecord, groups: Sequence[Group], fetch: Fetch) -> str:
    try:
        shown = viewer(record, groups, fetch)
    except AwaresError as error:
        log.warning("the report has no trajectories: %s", error)
        fault = f"The images could not be read: {escape(str(error))}"
        return f"<section><h2>Trajectories</h2><p>{fault}</p></section>"
    return f"<section>{title()}{shown}</section>" if shown else ""


def _times(record: RunRecord) -> str:
    if not record.wall_s:
        return ""
    cpu = ", and its CPU time by kind of process" if record.cpu_s else ""
    return (
        f"<section><h2>Time</h2><p>Duration of each job{cpu}.</p>"
        f"{times_table(record.wall_s, record.cpu_s)}</section>"
    )


def _footer(record: RunRecord) -> str:
    versions = " · ".join(
        f"{escape(name)} {escape(version)}" for name, version in record.versions.items()
    )
    return f"<footer>{f'<p>{versions}</p>' if versions else ''}</footer>"
