import json
import logging
import sys

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
