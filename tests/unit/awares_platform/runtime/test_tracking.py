"""Tests the trackers of a job with real TensorBoard, offline W&B, and MLflow on a local store."""

import json
import logging
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from awares.episode import Episode, StopReason, Turn
from awares.errors import ConfigError
from awares.sample import Sample
from awares.view import View
from awares_platform.config import PlatformConfig
from awares_platform.config.tracking import TrackingConfig
from awares_platform.runtime.tracking import tracking as trackers
from awares_platform.runtime.tracking.courier import Courier
from awares_platform.runtime.tracking.mlflow_runs import TABLE, MlflowRuns
from awares_platform.runtime.tracking.samples import FRAME, SIDE, sample_row
from awares_platform.runtime.tracking.tensorboard import TensorBoard
from awares_platform.runtime.tracking.tracker import SampleRow, TrackedJob
from awares_platform.runtime.tracking.tracking import Tracking

FULL = """
import resource, sys, time
from pathlib import Path
from awares_platform.runtime import logs
from awares_platform.runtime.tracking.tensorboard import TensorBoard
from awares_platform.runtime.tracking.tracker import TrackedJob
from awares_platform.runtime.tracking.tracking import Tracking

def metrics(step):
    tracking.metrics(step, {"reward/mean": float(step)})
    time.sleep(0.5)

logs.configure()
job = TrackedJob("r", "j", Path(sys.argv[1]), "t", {})
tracking = Tracking({"TensorBoard": TensorBoard(job, pause_s=3.0)})
while not [*Path(sys.argv[1]).glob("tensorboard/events*")]:
    metrics(1)
_, most = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (1, most))
for step in range(2, 12):
    metrics(step)
resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
time.sleep(3)
metrics(12)
tracking.close()
"""
"""A program whose files cannot grow for 5 s, as on a full disk.

sys.argv[1] is the job's directory.
"""


@pytest.fixture
def job(tmp_path: Path) -> TrackedJob:
    settings = PlatformConfig().model_dump(mode="json")
    return TrackedJob("mini", "grpo", tmp_path, "watching", settings)


@pytest.fixture
def row() -> SampleRow:
    """Return the row of an episode in which the policy gets the left half of its image.

    The image has 40 x 20 pixels.
    """
    asks = _turn("GET_CROPS: ['7']", (View(),), ("7",))
    answers = _turn("7", (View((0, 0, 20, 20)),), ())
    episode = Episode(
        sample_id="q",
        image="ab" * 32,
        image_size=(40, 20),
        turns=(asks, answers),
        answer="7",
        stop=StopReason.ANSWER,
        visual_tokens=8,
        rtr_token=0.5,
        rtr_pixel=0.5,
    )
    image = Image.new("RGB", (40, 20), "blue")
    parts = {"answer": 10.0, "cost": 0.25}
    sample = Sample("q", "ab" * 32, "which digit?", "7")
    return sample_row(sample, episode, image, correct=True, reward=9.75, parts=parts)


def _turn(text: str, views: tuple[View, ...], crops: tuple[str, ...]) -> Turn:
    return Turn(
        context_ids=(1,),
        views=views,
        sampled_ids=(2,),
        logprobs=(0.0,),
        versions=(0,),
        text=text,
        crops=crops,
        stop=None if crops else StopReason.ANSWER,
    )


def test_a_sample_shows_the_crops_on_the_image(row: SampleRow) -> None:
    assert row.image.size == (SIDE, SIDE // 2) and row.crops == "7"
    assert row.image.getpixel((2, 2)) == row.image.getpixel((SIDE // 2 - 3, 100)) == FRAME
    assert row.image.getpixel((SIDE - 9, 100)) == (0, 0, 255)


def events(directory: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(directory)).Reload()


def test_tensorboard_gets_scalars_text_images_and_hyperparameters(
    job: TrackedJob, row: SampleRow
) -> None:
    tracking = Tracking({"TensorBoard": TensorBoard(job)})
    tracking.metrics(1, {"reward/mean": 0.25, "policy/kl": float("nan")})
    tracking.metrics(2, {"reward/mean": 0.5})
    tracking.samples(2, lambda: [row])
    tracking.close()
    found = events(job.directory / "tensorboard")
    rewards = [(event.step, event.value) for event in found.Scalars("reward/mean")]
    assert rewards == [(1, 0.25), (2, 0.5)]
    [image] = found.Images("samples/0")
    assert (image.step, image.width, image.height) == (2, SIDE, SIDE // 2)
    [text] = found.Tensors("samples/0/text_summary")
    assert b"which digit?" in text.tensor_proto.string_val[0]
    [configuration] = found.Tensors("configuration/text_summary")
    assert b"learning_rate" in configuration.tensor_proto.string_val[0]
    start = found.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    assert b"grpo.learning_rate" in start and "policy/kl" not in found.Tags()["scalars"]


def test_evaluation_is_one_tensorboard_series_a_policy(job: TrackedJob) -> None:
    tracking = Tracking({"TensorBoard": TensorBoard(job)})
    tracking.series(120, "evaluate", {"low": {"accuracy": 0.5}, "awares": {"accuracy": 0.75}})
    tracking.close()
    for policy, accuracy in (("low", 0.5), ("awares", 0.75)):
        [event] = events(job.directory / "tensorboard" / policy).Scalars("evaluate/accuracy")
        assert (event.step, event.value) == (120, accuracy)


def test_a_resumed_job_continues_its_tensorboard_curve(job: TrackedJob) -> None:
    for steps in ((1, 2, 3), (3, 4)):
        tracking = Tracking({"TensorBoard": TensorBoard(job)})
        for step in steps:
            tracking.metrics(step, {"reward/mean": float(10 * len(steps) + step)})
        tracking.close()
    found = events(job.directory / "tensorboard").Scalars("reward/mean")
    assert [(event.step, event.value) for event in found] == [(1, 31), (2, 32), (3, 23), (4, 24)]


def test_tensorboard_goes_on_after_a_full_disk_with_our_lines_only(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FULL, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = events(tmp_path / "tensorboard").Scalars("reward/mean")
    assert (12, 12.0) in [(event.step, event.value) for event in found]
    assert len([*tmp_path.glob("tensorboard/events*")]) <= 3
    lines = [line.partition(" ")[2].partition(" ")[2] for line in done.stderr.splitlines()]
    assert sorted(line.partition(": [")[0] for line in lines) == [
        "awares_platform.runtime.logs: a thread of tensorboard.summary.writer.event_file_writer "
        "has failed: OSError",
        "awares_platform.runtime.tracking.courier: TensorBoard lacks values (OSError",
    ], done.stderr


def test_mlflow_continues_the_run_of_a_resumed_job(
    job: TrackedJob, row: SampleRow, tmp_path: Path
) -> None:
    place = tmp_path / "mlruns"
    for steps in ((1, 2), (3,)):
        tracking = Tracking({"MLflow": MlflowRuns(job, str(place))})
        for step in steps:
            tracking.metrics(step, {"reward/mean": float(step)})
            tracking.samples(step, lambda: [row])
        tracking.close()
    client = MlflowRuns(job, str(place))._connect(str(place))
    experiment = client.get_experiment_by_name("watching")
    [run] = client.search_runs([experiment.experiment_id])
    history = client.get_metric_history(run.info.run_id, "reward/mean")
    assert sorted((point.step, point.value) for point in history) == [(1, 1), (2, 2), (3, 3)]
    assert run.data.params["grpo.steps"] == "120" and run.info.status == "FINISHED"
    table = json.loads(Path(client.download_artifacts(run.info.run_id, TABLE)).read_text())
    cells = [dict(zip(table["columns"], one, strict=True)) for one in table["data"]]
    assert [cell["step"] for cell in cells] == [1, 2, 3]
    assert cells[0]["reward/answer"] == 10.0 and cells[0]["question"] == "which digit?"
    shown = client.download_artifacts(run.info.run_id, cells[0]["image"]["filepath"])
    assert Image.open(shown).size == row.image.size


def records(directory: Path) -> list[Any]:
    """Return the records of all offline files of W&B, in order."""
    from wandb.proto import wandb_internal_pb2

    found = []
    for path in sorted(directory.glob("wandb/offline-run-*/run-*.wandb")):
        for data in _entries(path.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            found.append(record)
    return found


def _entries(data: bytes) -> Iterator[bytes]:
    """Yield the entries of a file in LevelDB's log format, after W&B's own header of 7 bytes.

    An entry is one or more fragments.
    """
    at, entry = 7, b""
    while at < len(data):
        left = 32768 - at % 32768
        # The file has blocks of 32 KiB. Fewer than 7 bytes at the end of a block are padding.
        if left < 7:
            at += left
            continue
        # The header of a fragment: checksum, length, and kind (1 whole, 2 first, 3 middle, 4 last).
        _, length, kind = struct.unpack_from("<IHB", data, at)
        entry += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            yield entry
            entry = b""


def _key(item: Any) -> str:
    return item.key or ".".join(item.nested_key)


def test_wandb_continues_the_run_of_a_resumed_job(
    job: TrackedJob, row: SampleRow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DATA_DIR", str(job.directory / "wandb"))
    for steps in ((1, 2), (3,)):
        tracking = Tracking.of(TrackingConfig(wandb=True), job)
        for step in steps:
            tracking.metrics(step, {"reward/mean": float(step)})
        tracking.samples(steps[-1], lambda: [row])
        tracking.close()
        # W&B names an offline directory after its start in whole seconds, so the next job must
        # start in another second.
        time.sleep(1.1)
    found = records(job.directory)
    assert {one.run.run_id for one in found if one.HasField("run")} == {"mini-grpo"}
    history = [
        {_key(item): json.loads(item.value_json) for item in one.history.item}
        for one in found
        if one.HasField("history")
    ]
    rewards = [(one["step"], one["reward/mean"]) for one in history if "reward/mean" in one]
    assert rewards == [(1, 1), (2, 2), (3, 3)]
    tables = [(one["samples.nrows"], one["samples.ncols"]) for one in history if len(one) > 5]
    assert tables == [(1, 9), (1, 9)]
    [first, _] = [one.artifact for one in found if one.HasField("artifact")]
    [shown] = [one for one in first.manifest.contents if one.path.endswith(".png")]
    assert Image.open(shown.local_path).size == row.image.size
    assert Path(shown.local_path).is_relative_to(job.directory)
    [path, _] = sorted(job.directory.glob("wandb/offline-run-*/files/media/table/*.table.json"))
    assert json.loads(path.read_text())["data"][0][1:4] == ["which digit?", "7", "7"]


class Failing:
    """A tracker that raises an error in every call of the methods named in `broken`."""

    def __init__(self, *broken: str) -> None:
        self._broken, self.got = broken, list[int]()

    def start(self) -> None:
        self._call("start")

    def metrics(self, step: int, values: Any) -> None:
        self._call("metrics")
        self.got.append(step)

    def series(self, step: int, area: str, values: Any) -> None: ...

    def samples(self, step: int, rows: Any) -> None: ...

    def close(self) -> None:
        self._call("close")

    def _call(self, method: str) -> None:
        if method in self._broken:
            raise RuntimeError("no disk")


@pytest.mark.parametrize("broken", ["start", "metrics", "close"])
def test_a_failing_tracker_is_logged_once_and_stops_nothing(
    broken: str, caplog: pytest.LogCaptureFixture
) -> None:
    failing, sound = Failing(broken), Failing()
    tracking = Tracking({"Broken": failing, "Sound": sound})
    for step in range(3):
        tracking.metrics(step, {"a/x": 1.0})
    tracking.close()
    assert sound.got == [0, 1, 2]
    [message] = [record.getMessage() for record in caplog.records]
    assert message.startswith("Broken lacks values (RuntimeError: no disk); the run goes on")


@pytest.fixture
def silent() -> Iterator[str]:
    """Yield the address of a server that accepts connections and never answers."""
    held = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            try:
                while True:
                    held.append(server.accept()[0])
            except OSError:
                pass

        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
    for connection in held:
        connection.close()


def test_a_server_that_never_answers_delays_nothing(
    job: TrackedJob, silent: str, caplog: pytest.LogCaptureFixture
) -> None:
    courier = Courier("MLflow", MlflowRuns(job, silent), waiting=2, close_s=1.0)
    began = time.monotonic()
    for step in range(5):
        courier.send(lambda tracker, step=step: tracker.metrics(step, {"a/x": 1.0}))
    assert time.monotonic() - began < 0.5
    courier.close()
    assert time.monotonic() - began < 4
    with caplog.at_level(logging.WARNING):
        shown = [record.getMessage() for record in caplog.records]
    assert any("too slow" in message for message in shown)
    assert any("is given up" in message for message in shown)


def test_a_missing_package_is_named_before_the_job_starts(
    job: TrackedJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(job: TrackedJob) -> None:
        raise ImportError("No module named 'wandb'")

    monkeypatch.setattr(trackers, "WeightsAndBiases", missing)
    with pytest.raises(ConfigError, match=r"tracking\.wandb is set.*pip install 'awares-train"):
        Tracking.of(TrackingConfig(wandb=True), job)
