"""Builds the viewer of trajectories: a part of the report in which a person filters episodes.

The page contains the episodes and images as JSON, and the script viewer.js. It loads no other file.
"""

import json
import logging
from collections.abc import Sequence
from html import escape
from importlib.resources import files

from awares.errors import DataError
from awares_platform.evaluate.results import NAMES
from awares_platform.grpo.group import Group
from awares_platform.report.episodes import Fetch, data_url
from awares_platform.report.journal_sample import spread
from awares_platform.report.records import DRAWN, EpisodeRecord, RunRecord
from awares_platform.report.trajectory import Trajectory, compared, evaluated, sampled

log = logging.getLogger(__name__)
HELD_OUT = 64
"""The largest number of held-out questions in the viewer."""
SIDE = 448
"""Maximum width and height in pixels of an image in the viewer."""

_CONTROLS = """
<form class="filters">
<label>version <select name="version"></select></label>
<label>reward from <input name="least" type="number" step="any"></label>
<label>to <input name="most" type="number" step="any"></label>
<label>request <select name="asked"><option value="">any</option>
<option value="asked">asked for crops</option><option value="direct">answered directly</option>
<option value="none">gave no valid answer</option></select></label>
<label>answer <select name="verdict"><option value="">any</option>
<option value="right">right</option><option value="wrong">wrong</option></select></label>
<label><input name="changed" type="checkbox"> changed since the last version</label>
<label>search <input name="text" type="search"></label>
</form>
<p class="count" aria-live="polite"></p><div class="episodes found"></div>
<p class="more"><button type="button">show more</button></p>
<noscript><p>The viewer needs JavaScript.</p></noscript>
"""


def viewer(record: RunRecord, groups: Sequence[Group], fetch: Fetch) -> str:
    """Return the viewer with the episodes of `groups` and of the evaluated policies.

    Episodes are left out if their image cannot be read. The result is "" without episodes.
    """
    training = compared(one for group in groups for one in sampled(group))
    shown = training + compared(_held_out(record))
    images = _images(shown, fetch)
    kept = [one.as_json() for one in shown if one.image in images]
    if not kept:
        return ""
    lost = len(shown) - len(kept)
    note = f"<p>{lost} episodes are left out, because their images cannot be read.</p>"
    data = _script_json({"episodes": kept, "images": images})
    script = files("awares_platform.report").joinpath("viewer.js").read_text("utf-8")
    return (
        f'{note if lost else ""}<div class="viewer">{_CONTROLS}'
        f'<script type="application/json">{data}</script></div><script>{script}</script>'
    )


def _held_out(record: RunRecord) -> list[Trajectory]:
    """Return the episodes of the trained policies on the same held-out questions.

    On up to HELD_OUT / 2 of these questions, the policies request or answer differently. On the
    other questions, they request and answer the same.
    """
    stages = [name for name in reversed(DRAWN) if record.episodes.get(name)]
    if not stages:
        return []
    rows = {name: {one.sample_id: one for one in record.episodes[name]} for name in stages}
    questions = list(rows[stages[-1]])
    outcomes = {key: {_outcome(rows[name].get(key)) for name in stages} for key in questions}
    differs = [key for key in questions if len(outcomes[key]) > 1]
    chosen = spread(differs, HELD_OUT // 2)
    same = [key for key in questions if len(outcomes[key]) == 1]
    chosen += spread(same, HELD_OUT - len(chosen))
    return [
        evaluated(rows[name][key], order, f"{NAMES[name]}, held-out questions")
        for order, name in enumerate(stages)
        for key in chosen
        if key in rows[name]
    ]


def _outcome(episode: EpisodeRecord | None) -> tuple[object, ...]:
    return () if episode is None else (episode.crops, episode.answer)


def _images(shown: Sequence[Trajectory], fetch: Fetch) -> dict[str, str]:
    """Map the hash of each readable image to a data URL."""
    images = {}
    for digest in dict.fromkeys(one.image for one in shown):
        try:
            images[digest] = data_url(fetch(digest), SIDE)
        except DataError as error:
            log.warning("the report leaves an image out: %s", error)
    return images


def _script_json(value: object) -> str:
    """Return JSON that cannot end the script element around it."""
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")


def title() -> str:
    """Return the heading of the viewer, and a text that says what it shows."""
    about = (
        "Episodes of versions from the whole run, and of the trained policies on held-out "
        "questions. A solid frame marks a view that the policy received, and a dashed frame marks "
        "the evidence. An episode counts as changed if no episode of the question's last version "
        "here has its request and its answer."
    )
    return f"<h2>Trajectories</h2><p>{escape(about)}</p>"
