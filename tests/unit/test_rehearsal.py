"""Tests the parts of tests/rehearsal that need no model: pages, replies, sampler and table."""

import io
import json
import mmap
import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from awares.mini.pages import generate_pages
from awares_platform.config import load
from awares_platform.config.largest_request import largest
from awares_platform.method.flops import Pass as Work
from awares_platform.method.flops import language_flops
from awares_platform.plan.engine import EngineMemory
from awares_platform.plan.geometry import KNOWN
from awares_platform.plan.lengths import Lengths
from tests.rehearsal.endpoint import BOXES, endpoint
from tests.rehearsal.figures import (
    Pass,
    compact,
    engine_peak,
    from_json,
    passes,
    to_json,
    trainer_peak,
)
from tests.rehearsal.memory import ProcessMemory, Sampler
from tests.rehearsal.pages import HEIGHT, WIDTH, pages
from tests.rehearsal.probe import mapped_weights
from tests.rehearsal.run import SETUP
from tests.rehearsal.shallow_model import SPECIAL
from tests.rehearsal.table import (
    FIGURES,
    Row,
    committed,
    longest_prompt,
    padding,
    planned_engine,
    planned_padding,
    planned_trainer,
    text,
)
from tests.rehearsal.work import scorings, split, step_work

ROOT = Path(__file__).parents[2]
MB = 1_000_000


def grey(data: bytes, box: tuple[int, int, int, int]) -> np.ndarray:
    """Return the part of an image inside `box`, as 64 x 64 grey values."""
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("L").crop(box).resize((64, 64)), dtype=float)


def test_a_page_shows_its_evidence_at_the_enlarged_box() -> None:
    scenes = generate_pages("train", 3, 0)
    for (scene, small), (data, sample) in zip(scenes, pages("train", 3, seed=0), strict=True):
        with Image.open(io.BytesIO(data)) as page:
            assert page.size == (WIDTH, HEIGHT) == (1700, 2200)
        assert sample.label is None and sample.crops == ()
        for before, after in zip(small.evidence, sample.evidence, strict=True):
            difference = np.abs(grey(scene, before) - grey(data, after)).mean()
            assert difference < 12, "a shifted box shows something else"
        assert grey(data, (0, 0, WIDTH, 240)).min() > 245, "the rest is white paper"


def test_the_same_seed_gives_the_same_pages() -> None:
    first, second = (next(iter(pages("test", 1, seed=3))) for _ in range(2))
    assert first == second != next(iter(pages("test", 1, seed=4)))


def test_the_endpoint_locates_images_and_judges_texts() -> None:
    def ask(content: object) -> str:
        body = json.dumps({"messages": [{"role": "user", "content": content}]}).encode()
        with urllib.request.urlopen(f"{url}/chat/completions", body, timeout=10) as answer:
            return json.load(answer)["choices"][0]["message"]["content"]

    with endpoint() as url:
        assert ask([{"type": "image_url"}]) == BOXES
        assert {ask(f"question {number}") for number in range(20)} == {"0", "2"}


def test_the_sampler_sees_the_peak_of_a_grandchild() -> None:
    grandchild = "import time; held = bytearray(300_000_000); time.sleep(2)"
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {grandchild!r}])"
    process = subprocess.Popen([sys.executable, "-c", child])
    sampler = Sampler(os.getpid())
    process.wait()
    sampler.close()
    peaks = [memory.peak() for memory in sampler.seen.values()]
    assert 300 * MB < max(peaks) < 340 * MB


def test_a_peak_between_two_times_counts_the_memory_held_before() -> None:
    memory = ProcessMemory("engine", [(1.0, 10), (2.0, 90), (3.0, 40), (5.0, 70)])
    assert memory.peak() == 90
    assert memory.peak(2.5, 4) == 90, "the sample at 2.0 holds until 3.0"
    assert memory.peak(3.5, 4) == 40
    assert memory.peak(3.5, 6) == 70


def test_small_changes_are_no_samples() -> None:
    memory = ProcessMemory("engine", [(time.time(), 10 * MB)])
    memory.add(12 * MB)
    memory.add(20 * MB)
    assert [size for _, size in memory.samples] == [10 * MB, 20 * MB]


SIZE = {"rows": 2, "width": 10}
EVENTS = [
    {"event": "engine", "pid": 8, "time": 0.2, "memory": 40},
    {"event": "load", "pid": 7, "time": 1.0, "memory": 100},
    {"event": "loaded", "pid": 7, "time": 3.0, "memory": 500, "mapped": 50},
    {
        "event": "pass",
        "pid": 7,
        "time": 4.0,
        "memory": 600,
        "rows": 2,
        "width": 10,
        "tokens": 20,
        "patches": 16,
        "gradient": 0,
    },
    {"event": "layer", "time": 4.1},
    {
        "event": "pass",
        "pid": 7,
        "time": 5.0,
        "memory": 650,
        "rows": 2,
        "width": 10,
        "tokens": 15,
        "patches": 8,
        "gradient": 1,
    },
    {"event": "layer", "time": 5.1},
    {"event": "head", "time": 5.2, "scored": 6},
    {"event": "layer", "time": 5.3},
]


def test_a_pass_counts_its_layers_and_its_padding() -> None:
    done = passes(EVENTS)
    assert done == [Pass(2, 10, 20, 16, 0, False, 1), Pass(2, 10, 15, 8, 6, True, 2)]
    assert padding(done[1:]) == 0.25 and padding(done) == 0.125


def test_a_trainers_peak_is_its_weights_and_the_most_that_a_pass_adds() -> None:
    samples = [(0.5, 100), (2.0, 9000), (3.5, 600), (4.5, 740), (5.1, 800), (6.0, 9000)]
    report = {"events": EVENTS, "processes": {"7": {"name": "ray", "samples": samples}}}
    # The weights take 450 bytes: loading adds 500 - 100 = 400 bytes and maps 50 bytes of a file.
    # The second pass adds 800 - 650 = 150 bytes, more than the first pass.
    assert trainer_peak(report) == 600


def test_a_planned_engine_copies_16_bit_logits_that_it_scores_on_a_cpu() -> None:
    shape = KNOWN["7B"]
    engine = EngineMemory(
        weights=10.0, adapters=0.0, encoder=0.0, workspace=5.0, scoring=8.0, overhead=0.0, kv=1.0,
        kv_token=1, wanted=1, requests=1, typical=1, longest=1,
    )  # fmt: skip
    kept = 2 * shape.vocab * shape.hidden
    assert planned_engine(engine, "float32", shape, 3) == 19 + 4 * kept
    assert planned_engine(engine, "bfloat16", shape, 3) == 19 + 12 * shape.vocab + 2 * kept
    assert planned_engine(engine, "bfloat16", shape, 0) == 16 + 2 * kept


def test_an_engines_peak_leaves_out_what_it_held_before_loading() -> None:
    memory = {"name": "engine", "samples": [(0.1, 10), (0.2, 40), (2.0, 900), (3.0, 300)]}
    assert engine_peak({"events": EVENTS, "processes": {"8": memory}}) == 860
    assert engine_peak({"events": EVENTS[1:], "processes": {}}) is None


def test_mapped_weights_are_the_files_that_the_process_maps(tmp_path: Path) -> None:
    before = mapped_weights()
    (tmp_path / "model.safetensors").write_bytes(b"0" * 3 * mmap.PAGESIZE)
    with (tmp_path / "model.safetensors").open("rb") as file:
        held = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        assert mapped_weights() - before == 3 * mmap.PAGESIZE
        held.close()
    assert mapped_weights() == before


def test_the_planned_trainer_is_the_largest_pass_with_gradients() -> None:
    config, shape = load(SETUP), KNOWN["7B"]
    small, large = Pass(1, 100, 90, 8, 5, True, 2), Pass(2, 1000, 1900, 8, 40, True, 2)
    reference = Pass(8, 9000, 9000, 8, 40, False, 1)
    planned = [
        planned_trainer(config, config.grpo, shape, done)
        for done in ([small], [small, large], [small, large, reference])
    ]
    assert planned[0] < planned[1] == planned[2]


def test_figures_are_a_small_part_of_a_report() -> None:
    samples = [(0.1, 40), (0.5, 100), (2.0, 9000), (3.5, 600), (5.1, 800)]
    report = {
        "seconds": 9.04,
        "events": EVENTS,
        "processes": {
            "7": {"name": "ray", "samples": samples},
            "8": {"name": "", "samples": samples},
        },
        "metrics": [{"time/learn": 3.0, "time/other": 1.0}, {"time/other": 2.0}],
        "replies": [{}, {}],
    }
    figures = compact(report)
    assert (figures.seconds, figures.trainer, figures.engine) == (9.0, 600, 8960)
    assert (figures.metrics, figures.replies) == ([{"time/learn": 3.0}], 2)
    assert from_json(json.loads(json.dumps(to_json(figures)))) == figures
    checked = compact({**report, "events": [{**event, "gradient": 0} for event in EVENTS]})
    assert (checked.trainer, checked.engine, checked.passes) == (None, 8960, [])


def test_the_committed_table_is_that_of_the_committed_figures() -> None:
    assert (FIGURES.parent / "README.md").read_text() == text(*committed())


def test_a_canary_of_two_questions_has_no_half_of_an_image() -> None:
    config, tokens = load(SETUP), lengths_of(plain=600, called=1200)
    assert config.evaluate.questions == 2
    found = [longest_prompt(config, job, tokens) for job in ("curate", "grpo", "evaluate")]
    assert found == [0, 1700, 1200]


def test_planned_padding_is_that_of_the_episodes_with_a_request() -> None:
    tokens = lengths_of(plain=600, called=1200)
    mixed, alike = Pass(2, 1249, 1861, 8, 5, True, 2), Pass(2, 1252, 2501, 8, 5, True, 2)
    assert planned_padding([mixed], tokens) == pytest.approx(1 - 1800 / 2400)
    assert planned_padding([mixed, alike], tokens) == pytest.approx(1 - 4200 / 4800)
    assert planned_padding([alike], tokens) == 0


def test_the_work_of_a_step_is_counted_by_hand() -> None:
    shape, tokens = KNOWN["7B"], lengths_of(plain=600, called=1200)
    canary = [Pass(1, 100, 100, 40, 3, False, 1), Pass(1, 200, 200, 40, 4, False, 1)]
    reference, update = Pass(2, 50, 90, 40, 2, False, 1), Pass(2, 50, 90, 40, 2, True, 2)
    step = [reference, update, *canary]
    done = [*canary, *canary, *step, *step]
    assert split(done) == (4 * canary, [[reference, update]] * 2)
    alike = [canary[0], canary[0], canary[1], canary[1]]
    assert scorings(4 * canary) == 4 and scorings(2 * alike) == 2
    head, tower = 2 * shape.vocab * shape.hidden, 2 * shape.vision_parameters * 40
    forward, backward = Work(1, 0, 0), Work(2, 1, 0)
    language = sum(language_flops(shape, length, forward) for length in (100, 200))
    publish = language + 2 * tower + 7 * head
    learn = 2 * language_flops(shape, 50, forward) + tower + 2 * head
    learn += 2 * language_flops(shape, 50, backward) + 4 * head
    prompt = language_flops(shape, tokens.prompt, forward) + 2 * shape.vision_parameters * 520 * 4
    episodes = prompt + 64 * (language_flops(shape, 1, forward) + head)
    scored = language + 2 * tower + 300 * head
    grpo, loaded = load(SETUP).grpo, {"time/wait": 9.0, "time/load": 8.0}
    # In the first step, the engine loads weights and scores the canary twice. The learner waits for
    # the engine in both steps.
    found = step_work(done, [loaded, {"time/wait": 0.0}], grpo, shape, tokens)
    assert found[0] == pytest.approx(2 * scored + 2 * episodes)
    assert found[1:] == pytest.approx((2 * learn, 2 * publish))
    # In the second step, the engine now works while the learner trains. The work of this step
    # counts twice, because the learner is half as fast.
    found = step_work(done, [loaded, {"time/wait": 0.0, "time/load": 8.0}], grpo, shape, tokens)
    assert scored + episodes > learn + publish
    assert found == pytest.approx((2 * scored + episodes, 3 * learn, 3 * publish))


def lengths_of(plain: int, called: int) -> Lengths:
    """Return lengths with 16 sampled tokens a turn, a low view of 520 tokens, and no requests."""
    reply = called - plain - 16 - 500
    most = largest(load(SETUP).method, 16, "")
    return Lengths(
        text=plain - 16 - 520,
        reply=reply,
        low=520,
        crop=500,
        full=2000,
        answer=16,
        call_rate=0.0,
        widest=called,
        largest=most,
    )


@pytest.mark.parametrize(
    ("row", "line"),
    [
        (Row("sft", "peak", "GB", 8.8, 8.0), "| sft | peak | 8.80 GB | 8.00 GB | +10% |"),
        (Row("sft", "padding", "%", 0.1, 0.05), "| sft | padding | 10% | 5% |  |"),
        (Row("grpo", "share", "%", 0.5, None), "| grpo | share | 50% |  |  |"),
        (Row("sft", "runs", "", 2.0, 2.0), "| sft | runs | 2.00 | 2.00 | +0% |"),
    ],
)
def test_a_row_is_a_line_of_markdown(row: Row, line: str) -> None:
    assert str(row) == line


def test_the_setup_changes_only_counts_the_data_type_and_places() -> None:
    """Check that the rehearsal keeps the shipped settings of method, engine limits and policy.

    Only the paths of models, the data type and the policy's family may differ.
    """
    shipped = load(ROOT / "jobs/configs/awares-7b.toml")
    rehearsed = load(SETUP)
    assert rehearsed.method.model_copy(update={"similarity_model": ""}) == (
        shipped.method.model_copy(update={"similarity_model": ""})
    )
    assert rehearsed.engine.max_model_len == shipped.engine.max_model_len
    assert rehearsed.engine.max_images == shipped.engine.max_images
    policy = {"base": "", "dtype": "float32", "family": ""}
    assert rehearsed.policy.model_copy(update=policy) == shipped.policy.model_copy(update=policy)


def test_the_special_tokens_are_in_the_order_of_the_7bs_ids() -> None:
    assert SPECIAL.index("<|im_end|>") == 151_645 - 151_643
    assert SPECIAL.index("<|vision_start|>") == 151_652 - 151_643
    assert SPECIAL.index("<|image_pad|>") == 151_655 - 151_643
