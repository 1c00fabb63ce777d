"""Tests that the README and platform/docs name only things that exist, and make true claims.

The tests recompute the table of results from the results.json of each published run.
"""

import importlib
import json
import re
import sys
import tomllib
from pathlib import Path
from statistics import fmean

import pytest
from results_table import picture, published

from awares.episode import Episode, StopReason
from awares.errors import ConfigError
from awares.sample import Sample
from awares_platform.config import PlatformConfig, load
from awares_platform.method.reward import build_reward
from tests.spoken_turn import spoken_turn

ROOT = Path(__file__).parents[3]
README = (ROOT / "README.md").read_text()
DOCS = ROOT / "platform" / "docs"
PAGES = {path.name: path.read_text() for path in [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]}
EXTEND = PAGES["extend.md"]
FENCES = re.findall(r"^```(\w+)\n(.*?)^```$", EXTEND, re.MULTILINE | re.DOTALL)
TEXT = "\n".join(PAGES.values())
CODE = "\n".join([*re.findall(r"`([^`\n]+)`", TEXT), *re.findall(r"^    (.+)$", TEXT, re.M)])
"""The inline code and the indented blocks of all pages."""

RUNS = sorted((Path(__file__).parent / "quickstarts").glob("*.json"))
"""The paths of the published results, one JSON file for each quickstart run."""
ADAPTER_RUNS = Path(__file__).with_name("lora_runs.json")
"""The path of the results of three quickstarts that trained LoRA adapters.

Their key `canary_slope` lists the slopes that a run measured. A slope is the change of the canary's
logprobs in the engine, divided by their change in the learner.
"""
PAGE_RUNS = Path(__file__).with_name("large_pages.json")
"""The path of the results of tests/benchmarks/large_pages.py, by `method.crop_scale`."""

FOLDERS = ("awares", "helm", "jobs", "manifests", "platform", "tests")
COMMANDS = (ROOT / "platform/awares_platform/cli/main.py").read_text()


def section(title: str) -> str:
    found = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", README, re.MULTILINE | re.DOTALL)
    assert found, f"README.md has no section {title}"
    return found[1]


def layout() -> list[tuple[int, str]]:
    """Return the indentation depth and the paths of each line in the README's section Layout."""
    lines = [line[4:] for line in section("Layout").splitlines() if line.startswith("    ")]
    parts = [(len(line) - len(line.lstrip()), line.split("  ")) for line in lines]
    return [(depth // 2, next(filter(None, words)).strip()) for depth, words in parts]


def test_the_files_that_it_names_exist() -> None:
    paths = re.findall(rf"(?<![\w/.<>-])(?:{'|'.join(FOLDERS)})/[\w./-]*", CODE)
    assert len(paths) > 30
    missing = [path for path in paths if not (ROOT / path.rstrip(".")).exists()]
    assert missing == [], f"the pages name files that do not exist: {missing}"


def test_its_links_lead_somewhere() -> None:
    targets = re.findall(r"\]\(([^)#]+)", README)
    assert targets, "the README must show a picture"
    local = [target for target in targets if not target.startswith(("http://", "https://"))]
    assert [target for target in local if not (ROOT / target).exists()] == []


def test_the_make_targets_exist() -> None:
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    named = set(re.findall(r"\bmake ([a-z]+)", CODE))
    assert {"quickstart", "test", "check"} <= named <= set(targets)


def test_the_commands_exist() -> None:
    commands = set(re.findall(r"@commands\.command\ndef (\w+)", COMMANDS))
    commands |= set(re.findall(r"commands\.command\(name=\"(\w+)\"\)", COMMANDS))
    named = set(re.findall(r"\bawares ([a-z]+)", CODE))
    assert {"grpo", "weights", "plan"} <= named <= commands
    actions = re.search(r"awares weights ([a-z|]+) <run>", README)
    assert actions and all(f'"{action}"' in COMMANDS for action in actions[1].split("|"))


def test_the_parts_that_it_names_can_be_imported() -> None:
    names = re.findall(r"(?<![\w/.])awares(?:_platform)?(?:\.\w+)+\.[A-Z]\w*", CODE)
    assert len(names) >= 3
    for name in names:
        module, _, attribute = name.rpartition(".")
        assert hasattr(importlib.import_module(module), attribute), name


def test_the_settings_that_it_names_exist() -> None:
    sections = {name: type(part) for name, part in PlatformConfig()}
    pattern = rf"(?<![\w/.])({'|'.join(sections)})\.(\w+)(?!\()(?![\w.]*\.(?:py|toml|json))"
    named = [
        (part, key)
        for part, key in re.findall(pattern, CODE)
        if key not in ("json", "toml", "py", "md", "html")
    ]
    assert len(named) > 10
    for part, key in named:
        assert key in sections[part].model_fields, f"{part}.{key} in the pages is no setting"


def test_the_layout_names_what_is_there() -> None:
    parents: list[str] = []
    named = set()
    for depth, words in layout():
        for name in words.split():
            path = ROOT.joinpath(*parents[:depth], name)
            assert path.exists(), f"{path.relative_to(ROOT)} in the layout does not exist"
            named.add(path)
        parents = [*parents[:depth], words.split()[0]]
    folders = [ROOT / "tests" / path.name for path in (ROOT / "tests").iterdir() if path.is_dir()]
    assert {path for path in folders if not path.name.startswith("_")} <= named


def test_the_rooms_stand_in_the_order_of_their_layers() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    layers = next(one["layers"] for one in settings["contracts"] if "containers" in one)
    rooms = [room.strip() for layer in layers for room in layer.split("|")]
    found = layout()
    start = found.index((0, "platform/awares_platform/")) + 1
    end = next(at for at in range(start, len(found)) if found[at][0] == 0)
    drawn = [words.rstrip("/") for depth, words in found[start:end] if depth == 1]
    rank = {room: number for number, layer in enumerate(layers) for room in layer.split(" | ")}
    assert sorted(drawn) == sorted(rooms)
    assert [rank[room] for room in drawn] == sorted(rank[room] for room in drawn)


def test_the_glossary_has_one_sentence_for_each_term() -> None:
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", section("Glossary"), re.MULTILINE)[1:]
    terms = [term for term, _ in rows]
    assert len(terms) >= 30 and len(set(terms)) == len(terms)
    assert [term for term, meaning in rows if not re.fullmatch(r"[^.]+\.", meaning)] == []


def test_every_page_is_linked() -> None:
    assert [name for name in PAGES if name != "README.md" and f"docs/{name}" not in README] == []


def test_the_results_are_those_of_the_published_runs() -> None:
    runs = [json.loads(path.read_text("utf-8")) for path in RUNS]
    assert [run["seed"] for run in runs] == [0, 1, 2]
    passage = re.search(r"<!-- results:begin -->\n(.*?)\n<!-- results:end -->", README, re.DOTALL)
    assert passage and passage[1] == published(runs)
    assert (DOCS / "results.svg").read_text("utf-8") == picture(runs[0]["policies"])


def test_the_table_of_adapters_is_that_of_the_published_runs() -> None:
    whole = [json.loads(path.read_text("utf-8"))["policies"]["awares"] for path in RUNS]
    lines = []
    for before, run in zip(whole, json.loads(ADAPTER_RUNS.read_text("utf-8")), strict=True):
        adapter, slopes = run["policies"]["awares"], run["canary_slope"]
        slope = f"{fmean(slopes):.2f} ({min(slopes):.2f} to {max(slopes):.2f})"
        lines.append(f"| {run['seed']} | {scores(before)} | {scores(adapter)} | {slope} |")
        assert abs(before["accuracy"] - adapter["accuracy"]) < 0.01
        assert 0.95 < min(slopes) < max(slopes) < 1.05
    table = re.search(r"<!-- lora:begin -->\n(.*?)\n<!-- lora:end -->", PAGES["weights.md"], re.S)
    assert table and table[1].splitlines()[2:] == lines


def scores(policy: dict[str, float]) -> str:
    """Return a policy's accuracy and RTR as two cells of a table."""
    return f"{100 * policy['accuracy']:.1f} % | {policy['rtr_token']:.3f}".replace("| 0", "| ")


def test_the_table_of_pages_is_that_of_the_published_runs() -> None:
    runs = json.loads(PAGE_RUNS.read_text("utf-8"))
    named = [
        ("full resolution", runs["2"]["full"]),
        ("low resolution", runs["2"]["low"]),
        *((f"AwaRes, `crop_scale = {scale}`", runs[scale]["awares"]) for scale in ("2", "1")),
    ]
    lines = []
    for name, policy in named:
        parts = (policy["by_label"]["HR"], policy["by_label"]["LR"], policy)
        cells = (f"{100 * one['accuracy']:.1f} % | {one['rtr_token']:.2f}" for one in parts)
        lines.append(f"| {name} | {' | '.join(cells)} |")
    table = re.search(r"<!-- pages:begin -->\n(.*?)\n<!-- pages:end -->", README, re.DOTALL)
    assert table and table[1].splitlines()[2:] == lines
    counts = [runs["2"]["full"]["by_label"][label]["n"] for label in ("HR", "LR")]
    assert counts == [602, 1446]


def test_what_the_text_says_of_the_results_holds() -> None:
    runs = [json.loads(path.read_text("utf-8"))["policies"] for path in RUNS]
    for policies in runs:
        full, escalate, awares = (policies[name] for name in ("full", "escalate", "awares"))
        # According to the README, AwaRes loses at most 1.5 points of accuracy compared with full
        # resolution, and uses about 40 % as many visual tokens.
        assert full["accuracy"] - awares["accuracy"] < 0.015
        assert awares["rtr_token"] == pytest.approx(0.4, abs=0.05)
        assert abs(escalate["accuracy"] - awares["accuracy"]) < 0.02


def test_lines_have_at_most_100_columns() -> None:
    prose = re.sub(r"<!-- (\w+):begin -->.*?<!-- \1:end -->", "", TEXT, flags=re.DOTALL)
    lines = [line for line in prose.splitlines() if not line.startswith("|")]
    assert [line for line in lines if len(line) > 100] == []


def episode(answer: str, crops: tuple) -> Episode:
    first = spoken_turn(crops=crops, stop=None if crops else StopReason.ANSWER)
    last = spoken_turn(text=answer, stop=StopReason.ANSWER)
    return Episode(
        sample_id="q",
        image="h",
        image_size=(8, 8),
        turns=(first, last) if crops else (first,),
        answer=answer,
        stop=StopReason.ANSWER,
        visual_tokens=4,
        rtr_token=0.25,
        rtr_pixel=0.25,
    )


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Write the example of extend.md to a module on sys.path, and yield the module's name."""
    name = re.search(r"`(\w+)\.py`", EXTEND)
    assert name and [language for language, _ in FENCES] == ["python", "toml"]
    (tmp_path / f"{name[1]}.py").write_text(FENCES[0][1])
    monkeypatch.syspath_prepend(tmp_path)
    yield name[1]
    sys.modules.pop(name[1], None)


def test_the_example_of_a_reward_runs(module: str, tmp_path: Path) -> None:
    setup = tmp_path / "setup.toml"
    setup.write_text(f"[method]\n{FENCES[1][1]}")
    config = load(setup)
    assert config.method.reward.startswith(f"{module}:")
    sample = Sample("q", "h", "which?", "paris")
    values = build_reward(config.method)(
        [episode("parts", ("0",)), episode("paris", ())], [sample] * 2
    )
    assert [value.total for value in values] == pytest.approx([0.8 - 0.2, 1.0])
    assert values[0].parts == pytest.approx({"answer": 0.8, "cost": 0.2})


def test_a_setting_that_the_example_does_not_take_is_refused(module: str, tmp_path: Path) -> None:
    setup = tmp_path / "setup.toml"
    setup.write_text(f"[method]\n{FENCES[1][1].replace('price', 'fee')}")
    with pytest.raises(ConfigError, match="method.reward_settings.fee"):
        build_reward(load(setup).method)
