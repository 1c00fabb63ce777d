"""Configures logging: plain lines by default, and JSON lines on Kubernetes."""

import json
import logging
import os
import sys
import threading
import traceback

log = logging.getLogger(__name__)
_PLAIN = "%(levelname).1s %(asctime)s %(name)s: %(message)s"
OURS = ("awares", "awares_platform")
"""The loggers of this project."""
_NOISY = ("botocore", "urllib3", "stamina", "httpx", "filelock", "fsspec")

_RAY_TOKEN = "ray._private.authentication.authentication_token_setup"


def configure(level: int = logging.INFO, *, json_lines: bool | None = None) -> None:
    """Send this process's log records to stderr.

    Records of this project appear from `level` up, and records of other packages from WARNING up.
    If `json_lines` is None, records are JSON only on Kubernetes.
    """
    if json_lines is None:
        json_lines = "KUBERNETES_SERVICE_HOST" in os.environ
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if json_lines else logging.Formatter(_PLAIN, "%H:%M:%S"))
    logging.basicConfig(level=max(level, logging.WARNING), handlers=[handler], force=True)
    for name in OURS:
        logging.getLogger(name).setLevel(level)
    # Without a UTF-8 locale, Ray Data cannot write some characters to its own log file. By default,
    # Python prints a traceback for each line with such a character.
    logging.raiseExceptions = False
    logging.getLogger(_RAY_TOKEN).addFilter(_is_no_token_notice)
    threading.excepthook = _FailedThreads().log
    for name in _NOISY:
        logging.getLogger(name).setLevel(max(level, logging.ERROR))


class _FailedThreads:
    """Logs the exceptions that end threads. Only a thread of this project gets a traceback.

    A library may start the same thread again and again, so a library's failure is logged only once.
    """

    def __init__(self) -> None:
        self._logged: set[str] = set()

    def log(self, failed: threading.ExceptHookArgs) -> None:
        """Log the exception that has ended a thread."""
        if failed.exc_value is None or failed.exc_type is SystemExit:
            return
        modules = [
            str(frame.f_globals.get("__name__"))
            for frame, _ in traceback.walk_tb(failed.exc_traceback)
            if frame.f_globals.get("__name__") != "threading"
        ]
        ours = any(module.partition(".")[0] in OURS for module in modules)
        thread, cause = modules[0] if modules else "a library", failed.exc_value
        line = f"a thread of {thread} has failed: {type(cause).__name__}: {cause}"
        if ours or line not in self._logged:
            self._logged.add(line)
            log.error("%s", line, exc_info=cause if ours else None)


def _is_no_token_notice(record: logging.LogRecord) -> bool:
    """Return false for Ray's notice about token authentication, so that the log drops it.

    The notice needs no action.
    """
    return not record.getMessage().startswith("Token authentication is enabled")


class JsonFormatter(logging.Formatter):
    """Formats a record as a JSON object.

    The keys are time (Unix seconds), level, logger, message, process (the process id), and error
    (the traceback, if there is one).
    """

    def format(self, record: logging.LogRecord) -> str:
        fields = {
            "time": round(record.created, 3),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            "process": record.process,
        }
        if record.exc_info and record.exc_info[0]:
            fields["error"] = "".join(traceback.format_exception(*record.exc_info))
        return json.dumps(fields, ensure_ascii=False)
