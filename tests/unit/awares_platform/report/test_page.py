"""Tests that the page of a run is complete, refers to no other file, and escapes text."""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from awares.crops import CropId
from awares.episode import Episode, StopReason, Turn
from awares.errors import DataError
from awares.sample import Label, Sample
from awares.view import View, crop_view
from awares_platform.config import PlatformConfig
from awares_platform.config.method import MethodConfig
from awares_platform.evaluate.episode_rows import encode_episodes
from awares_platform.evaluate.results import policy_metrics
from awares_platform.evaluate.scored import Scored
from awares_platform.report.episodes import Fetch
from awares_platform.report.page import render
from awares_platform.report.records import read_run
from awares_platform.runtime.metrics import MetricsWriter

SIZE = (64, 48)


class Balance(HTMLParser):
    """An HTML parser that records element ids, and checks that the tags are balanced."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.ids += [value for key, value in attrs if key == "id" and value]
        if tag not in ("meta", "input"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def _scored(
    index: int, crops: tuple[CropId, ...], answer: str | None, latency: float | None = 0.02
) -> Scored:
    sample = Sample(
        f"q{index}",
        f"{index:064x}",
        f"digit {index} <b>?",
        "7",
        kind="digit" if index % 2 else "sum",
        evidence=((2, 2, 20, 20),),
        label=Label.HR,
    )
    last = None if crops else StopReason.ANSWER
    first = Turn(
        context_ids=(1, 2),
        views=(View(None),),
        sampled_ids=(3,),
        logprobs=(0.0,),
        versions=(0,),
        text="GET_CROPS",
        crops=crops,
        stop=last,
    )
    views = tuple(crop_view(crop, SIZE) for crop in crops)
    second = Turn(
        context_ids=(4,),
        views=views,
        sampled_ids=(5,),
        logprobs=(0.0,),
        versions=(0,),
        text="7",
        crops=(),
        stop=StopReason.ANSWER,
    )
    episode = Episode(
        sample_id=sample.sample_id,
        image=sample.image,
        image_size=SIZE,
        turns=(first, second) if crops else (first,),
        answer=answer,
        stop=StopReason.ANSWER if answer else StopReason.MALFORMED,
        visual_tokens=4 + 4 * len(crops),
        rtr_token=0.25 + 0.25 * len(crops),
        rtr_pixel=0.3,
    )
    return Scored(sample, sample, episode, float(answer == "7"), latency)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Return a directory with the files that sft, grpo and evaluate write for a run."""
    requests = [(), (CropId.TOP_LEFT,), (CropId.TOP, CropId.LEFT), (CropId.ALL,)]
    answers = ("7", "7", "7", None, "<script>alert(1)</script>")
    after = [_scored(index, requests[index % 4], answers[index % 5]) for index in range(20)]
    before = [_scored(index, requests[1], "7") for index in range(20)]
    direct = [_scored(index, (), "7", latency=None) for index in range(20)]
    policies = {
        "full": policy_metrics(direct, False, seed=0),
        "low": policy_metrics(direct, False, seed=0),
        "escalate": policy_metrics(before, True, seed=0),
        "sft": policy_metrics(before, True, seed=0),
        "awares": policy_metrics(after, True, seed=0),
    }
    for job in ("sft", "grpo", "evaluate"):
        (tmp_path / job).mkdir()
    (tmp_path / "evaluate" / "results.json").write_text(json.dumps({"policies": policies}))
    (tmp_path / "evaluate" / "episodes-awares.parquet").write_bytes(encode_episodes(after))
    (tmp_path / "evaluate" / "versions.json").write_text('{"ray": "2.60.0"}')
    config = PlatformConfig.model_validate({"policy": {"lora_rank": 8}, "grpo": {"steps": 80}})
    (tmp_path / "grpo" / "config.json").write_text(config.model_dump_json())
    cpu_s = {"sft": {"driver": 9.2, "learner": 70.0}, "grpo": {"driver": 4.0, "engine": 200.0}}
    times = {"wall_s": {"sft": 60.0, "grpo": 301.0}, "cpu_s": cpu_s}
    (tmp_path / "progress.json").write_text(json.dumps(times))
    writer = MetricsWriter(tmp_path / "grpo")
    for step in range(1, 7):
        values = {"reward/mean": 7.0 + step / 5, "rtr/token": 0.6 - step / 20}
        kl = float("nan") if step == 3 else 0.01 * step
        writer.report(step, {**values, "policy/kl": kl})
    return tmp_path


def _fetch(digest: str) -> Image.Image:
    return Image.new("RGB", SIZE, (200, 180, 40))


def _page(directory: Path, fetch: Fetch = _fetch) -> str:
    return render(read_run(directory.joinpath, "mini", 3), fetch, MethodConfig())


def test_the_page_has_every_section(directory):
    page = _page(directory)
    assert re.findall(r"<h2>(.*?)</h2>", page) == [
        "Results",
        "What reinforcement changed",
        "Training",
        "Episodes",
        "Trajectories",
        "Time",
    ]
    assert "run mini · seed 3" in page and "ray 2.60.0" in page
    assert re.findall(r"<figcaption><b>(.*?)</b>", page) == [
        "Reward",
        "RTR",
        "KL to the SFT policy",
    ]
    assert page.count('<article class="episode') == 12 and '<div class="viewer">' in page


def test_the_page_says_how_many_questions_a_spent_budget_left_unlabelled(directory):
    file = directory / "evaluate" / "results.json"
    assert "curate.budget" not in _page(directory)
    labels = {"counts": {"LR": 17, "none": 3}, "crops": {}, "unpaid": 3}
    file.write_text(json.dumps(json.loads(file.read_text()) | {"labels": labels}))
    assert "3 questions have no label, because curate.budget is spent" in _page(directory)


def test_the_times_are_one_row_per_job(directory):
    section = _page(directory).split("<h2>Time</h2>")[1]
    rows = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in section.split("<tr>")[1:]]
    assert rows == [
        ["job", "duration", "CPU", "driver", "learner", "engine"],
        ["sft", "1 min 00 s", "79 s", "9 s", "70 s", "–"],
        ["grpo", "5 min 01 s", "204 s", "4 s", "–", "200 s"],
    ]


def test_the_page_loads_no_other_file(directory):
    page = _page(directory)
    assert re.findall(r"https?://|<script [^>]*src|<link|<iframe|@import|\bsrc=", page) == []
    assert re.findall(r"\bfetch\(|XMLHttpRequest|import\(|WebSocket|innerHTML", page) == []
    targets = re.findall(r'href="([^"]*)"', page)
    assert all(target.startswith("data:image/webp;base64,") for target in targets)
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", page))


def test_tags_close_and_ids_are_unique(directory):
    balance = Balance()
    balance.feed(_page(directory))
    assert balance.open == []
    assert len(balance.ids) == len(set(balance.ids)) > 0


def test_answers_of_the_model_are_escaped(directory):
    page = _page(directory)
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page and "no answer (malformed)" in page


def test_a_run_without_jobs_still_has_a_page(tmp_path):
    page = render(read_run(tmp_path.joinpath, "mini", 0), _fetch, MethodConfig())
    assert "Look where it matters" in page and "<h2>" not in page


def test_missing_images_remove_only_the_episodes(directory):
    def fetch(digest: str) -> Image.Image:
        raise DataError("image 00ff is missing")

    page = _page(directory, fetch)
    assert "The images could not be read: image 00ff is missing" in page
    assert "<h2>Results</h2>" in page


def test_damaged_files_are_named(directory):
    (directory / "evaluate" / "results.json").write_text("{")
    with pytest.raises(DataError, match=r"results\.json is not JSON"):
        read_run(directory.joinpath, "mini", 0)
    (directory / "evaluate" / "results.json").write_text("{}")
    (directory / "evaluate" / "episodes-awares.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"episodes-awares\.parquet is damaged"):
        read_run(directory.joinpath, "mini", 0)


def test_the_page_says_what_the_run_is(directory):
    page = _page(directory)
    facts = dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", page))
    assert facts["base policy"] == "mini, LoRA rank 8"
    assert facts["data set"] == "awares-mini (mini)"
    assert facts["GRPO"] == "6 of 80 steps"
    assert re.fullmatch(r"20\d\d-\d\d-\d\d \d\d:\d\d UTC.*", facts["date"])
    assert "Settings that differ from the mini setup: 2" in page
    assert '<th scope="row">grpo.steps</th><td>80</td>' in page


def test_two_runs_are_compared(directory, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    shutil.copytree(directory, other, dirs_exist_ok=True)
    (other / "grpo" / "config.json").write_text(PlatformConfig().model_dump_json())
    results = json.loads((other / "evaluate" / "results.json").read_text())
    results["policies"]["awares"]["accuracy"] -= 0.05
    (other / "evaluate" / "results.json").write_text(json.dumps(results))
    records = [read_run(at.joinpath, name, 3) for at, name in ((directory, "new"), (other, "old"))]
    page = render(records[0], _fetch, MethodConfig(), other=records[1])
    section = page.split("<h2>Compared with old</h2>")[1].split("</section>")[0]
    assert re.search(r"AwaRes</th><td>\+5\.0 points <small>[\d.]+% → [\d.]+%</small>", section)
    assert '<th scope="row">policy.lora_rank</th><td>0</td><td>8</td>' in section
    assert '<th scope="row">grpo.steps</th><td>120</td><td>80</td>' in section
    assert section.count('<tr><th scope="row">') == 2 and "run.name" not in section
    assert page.count('class="beside"') == 3
