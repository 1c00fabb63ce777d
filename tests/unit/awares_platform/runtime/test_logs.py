import json
import logging
import sys
import threading
from pathlib import Path

import pytest

from awares_platform.runtime import logs
from awares_platform.runtime.logs import JsonFormatter


def test_a_record_is_one_json_object_even_with_an_error() -> None:
    try:
        raise ValueError("two\nlines")
    except ValueError:
        record = logging.LogRecord(
            "awares_platform.store.client",
            logging.WARNING,
            __file__,
            1,
            "%s: gone",
            ("s3://b/k",),
            sys.exc_info(),
        )
    line = JsonFormatter().format(record)
    assert "\n" not in line
    fields = json.loads(line)
    assert (fields["level"], fields["logger"], fields["message"]) == (
        "WARNING",
        "awares_platform.store.client",
        "s3://b/k: gone",
    )
    assert "ValueError: two\nlines" in fields["error"]


def test_other_packages_reach_the_terminal_only_with_warnings(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logs.configure()
    for name in ("sentence_transformers.base.model", "awares_platform.data.dataset", "awares"):
        logging.getLogger(name).debug("detail of %s", name)
        logging.getLogger(name).info("news of %s", name)
        logging.getLogger(name).warning("warning of %s", name)
    assert [line.partition(": ")[2] for line in capsys.readouterr().err.splitlines()] == [
        "warning of sentence_transformers.base.model",
        "news of awares_platform.data.dataset",
        "warning of awares_platform.data.dataset",
        "news of awares",
        "warning of awares",
    ]


def test_a_line_that_a_log_file_cannot_hold_prints_no_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(logging, "raiseExceptions", True)
    logs.configure()
    logger = logging.getLogger("ray.data.of_a_test")
    logger.propagate = False
    handler = logging.FileHandler(tmp_path / "ray-data.log", encoding="ascii")
    logger.addHandler(handler)
    try:
        logger.warning("\N{HEAVY CHECK MARK} finished")
    finally:
        logger.removeHandler(handler)
        handler.close()
    assert capsys.readouterr().err == ""


def test_rays_notice_of_its_token_is_dropped_and_its_warnings_are_kept() -> None:
    logs.configure()
    logger = logging.getLogger("ray._private.authentication.authentication_token_setup")
    seen: list[str] = []

    class Seen(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(record.getMessage())

    handler = Seen()
    logger.addHandler(handler)
    try:
        logger.warning("Token authentication is enabled for this Ray cluster. Set ...")
        logger.warning("Token authentication is disabled for this Ray cluster. Anyone ...")
    finally:
        logger.removeHandler(handler)
    assert [line.partition(" for")[0] for line in seen] == ["Token authentication is disabled"]


def test_only_a_thread_of_the_project_gets_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    before = threading.excepthook
    logs.configure()
    try:
        for work, module in ((json.loads, "json"), (JsonFormatter().format, "runtime.logs")):
            thread = threading.Thread(target=work, args=(None,))
            thread.start()
            thread.join()
            shown = capsys.readouterr().err
            assert f"has failed: {'TypeError' if module == 'json' else 'AttributeError'}" in shown
            assert module in shown and ("Traceback" in shown) is (module == "runtime.logs")
    finally:
        threading.excepthook = before
