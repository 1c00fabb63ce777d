import json
import logging
import sys

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
