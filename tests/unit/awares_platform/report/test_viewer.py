"""Tests which episodes of a journal the viewer shows, and that a browser can filter them."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from PIL import Image

from awares.crops import CropId
from awares.episode import Episode, StopReason, Turn
from awares.errors import DataError
from awares.reward import RewardValue
from awares.sample import Sample
from awares.view import View, crop_view
from awares_platform.grpo.group import Group, Member, Outcome, Prompt
from awares_platform.grpo.journal import Journal
from awares_platform.report.journal_sample import sample_groups, spread
from awares_platform.report.records import RunRecord, read_run
from awares_platform.report.trajectory import compared, sampled
from awares_platform.report.viewer import viewer
from awares_platform.store import ObjectStore

SIZE = (64, 48)
CHROMIUM = shutil.which("chromium")


class MemoryStore:
    """Stands in for an ObjectStore, with the objects in memory."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    def put(self, key: str, data: bytes, *, if_none_match: bool = False) -> None:
        self.objects[key] = data

    def get(self, key: str) -> bytes:
        return self.objects[key]

    def list(self, prefix: str) -> Iterator[Any]:
        return (SimpleNamespace(key=key) for key in self.objects if key.startswith(prefix))


def turn(text: str, version: int, views: tuple[View, ...], crops: tuple[str, ...] = ()) -> Turn:
    return Turn(
        context_ids=(1,),
        views=views,
        sampled_ids=tuple(map(ord, text)),
        logprobs=(0.0,) * len(text),
        versions=(version,) * len(text),
        text=text,
        crops=crops,
        stop=None if crops else StopReason.ANSWER,
    )


def member(sample: Sample, version: int, answer: str | None, crop: CropId | None = None) -> Member:
    first = turn("GET" if crop else answer or "GET", version, (View(),), (crop,) if crop else ())
    last = (turn(answer or "", version, (crop_view(crop, SIZE),)),) if crop else ()
    turns = (first, *last)
    episode = Episode(
        sample_id=sample.sample_id,
        image=sample.image,
        image_size=SIZE,
        turns=turns,
        answer=answer,
        stop=StopReason.MALFORMED if answer is None else StopReason.ANSWER,
        visual_tokens=8,
        rtr_token=0.5,
        rtr_pixel=0.5,
    )
    total = 10.0 if answer == "7" else 2.0
    return Member(episode, RewardValue(total, {"answer": total}), answer == "7", 0.0)


Played = tuple[str | None, CropId | None]
"""The answer and the requested crop of an episode."""


def group(number: int, name: str, version: int, *members: Played) -> Group:
    text = f"digit of {name} </script>?"
    sample = Sample(name, f"{name:0>64}", text, "7", evidence=((1, 1, 9, 9),))
    played = tuple(member(sample, version, answer, crop) for answer, crop in members)
    return Group(Prompt(number, 0, sample), played, Outcome.READY)


LEFT = CropId.TOP_LEFT
GROUPS = [
    group(0, "a", 1, ("7", None), ("3", LEFT)),
    group(1, "b", 1, (None, None), (None, None)),
    group(2, "a", 4, ("7", None), ("7", LEFT)),
]


@pytest.fixture
def store() -> ObjectStore:
    """Return a store with a run's journal, which the real class Journal has written."""
    store = cast(ObjectStore, MemoryStore())
    journal = Journal(store, "mini", "start")
    for one in GROUPS:
        journal.append([one])
    return store


def record() -> RunRecord:
    return read_run(Path("/nonexistent").joinpath, "mini", 0)


def picture(digest: str) -> Image.Image:
    return Image.new("RGB", SIZE, (200, 180, 40))


def test_the_journal_is_read_back(store: ObjectStore) -> None:
    assert sample_groups(store, "mini") == GROUPS
    cast(MemoryStore, store).objects["runs/mini/episodes/start/00000001.parquet"] = b"damaged"
    assert sample_groups(store, "mini") == [GROUPS[0], GROUPS[2]]


def test_a_long_run_is_sampled_evenly_and_questions_that_come_again_are_kept() -> None:
    store = cast(ObjectStore, MemoryStore())
    journal = Journal(store, "long", "start")
    for step in range(300):
        name = "again" if step in (0, 299) else f"q{step}"
        journal.append([group(step, name, step, ("7", None))])
    versions = [one.oldest or 0 for one in sample_groups(store, "long")]
    assert versions[0] == 0 and versions[-1] == 299 and 60 <= len(versions) <= 64
    assert max(late - early for early, late in zip(versions, versions[1:], strict=False)) <= 6
    asked = [one.oldest for one in sample_groups(store, "long", version=158)]
    assert asked.count(158) == 1 and 158 not in versions
    assert spread([0, 1, 2, 3, 4], 3) == [0, 2, 4] and spread([], 3) == []


def test_an_episode_is_compared_with_its_questions_last_version() -> None:
    shown = compared(one for played in GROUPS for one in sampled(played))
    assert [(one.version, one.sample_id, one.answer, one.changed) for one in shown] == [
        ("version 1", "a", "7", None),
        ("version 1", "a", "3", None),
        ("version 1", "b", None, None),
        ("version 4", "a", "7", False),
        ("version 4", "a", "7", True),
    ]
    assert shown[4].regions == ("top left",) and shown[4].boxes == ((0, 0, 32, 24),)
    assert shown[4].turns == ("GET", "7") and shown[4].parts == {"answer": 10.0}


def test_the_viewer_holds_its_data_and_no_text_can_end_the_script() -> None:
    drawn = viewer(record(), GROUPS, picture)
    [data] = re.findall(r'<script type="application/json">(.*?)</script>', drawn)
    held = json.loads(data)
    assert [one["answer"] for one in held["episodes"]] == ["7", "3", None, "7", "7"]
    assert held["images"].keys() == {one["image"] for one in held["episodes"]}
    assert held["episodes"][0]["question"] == "digit of a </script>?"


def test_an_unreadable_image_costs_its_episodes_only() -> None:
    def fetch(digest: str) -> Image.Image:
        if digest.endswith("b"):
            raise DataError("missing")
        return picture(digest)

    assert "1 episodes are left out" in viewer(record(), GROUPS, fetch)
    assert viewer(record(), GROUPS[1:2], lambda digest: fetch("b")) == ""


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
@pytest.mark.parametrize(
    ("choice", "found"),
    [
        ("", 5),
        ('form.elements.version.value = "version 4";', 2),
        ('form.elements.least.value = "9";', 3),
        ('form.elements.asked.value = "none";', 1),
        ('form.elements.asked.value = "asked";', 2),
        ("form.elements.changed.checked = true;", 1),
    ],
)
def test_a_browser_filters_the_episodes(tmp_path: Path, choice: str, found: int) -> None:
    event = 'form.dispatchEvent(new Event("input"));'
    chosen = f'const form = document.querySelector("form"); {choice} {event}'
    drawn = viewer(record(), GROUPS, picture)
    page = tmp_path / "page.html"
    page.write_text(f"<meta charset=utf-8>{drawn}<script>{chosen}</script>")
    command = [CHROMIUM or "", "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    command += [f"--user-data-dir={tmp_path}", page.as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=60).stdout
    assert f"{found} of 5 episodes" in shown
    assert shown.count('<article class="episode') == found
