"""Keeps the lines that Ray Serve prints in this process in a file, away from the terminal.

Ray Serve logs its own steps to stderr. When it stops, Ray prints that the controller's last call
failed, although the controller ends itself as intended. Ray prints that line from a thread and at
any later time, so the redirection lasts until the process ends.
"""

import logging
from pathlib import Path
from typing import Any

from ray._private import worker

_SERVE = "ray.serve"
_EXPECTED = "ServeController.graceful_shutdown"
_FORMAT = "%(levelname).1s %(asctime)s %(name)s: %(message)s"


class ServeLog(logging.FileHandler):
    """The file of a run that receives Ray Serve's lines.

    Example:
        ServeLog(Path("runs/mini/serve.log")).take_over()
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        super().__init__(path, encoding="utf-8", delay=True)
        self.setFormatter(logging.Formatter(_FORMAT))

    def take_over(self) -> None:
        """Receive the lines from now on. The terminal keeps warnings and errors only."""
        logger = logging.getLogger(_SERVE)
        for handler in list(logger.handlers):
            if isinstance(handler, ServeLog):
                logger.removeHandler(handler)
                handler.close()
            else:
                handler.setLevel(logging.WARNING)
        logger.addHandler(self)
        worker.print_to_stdstream = _Printer(self)


class _Printer:
    """Replaces Ray's function that prints the messages of other processes."""

    def __init__(self, log: ServeLog) -> None:
        before = worker.print_to_stdstream
        self._print = before._print if isinstance(before, _Printer) else before
        self._log = log

    def __call__(self, data: dict[str, Any], ignore_prefix: bool = False) -> None:
        expected = [line for line in data["lines"] if _EXPECTED in line]
        for line in expected:
            record = logging.LogRecord(_SERVE, logging.INFO, __file__, 0, line, None, None)
            self._log.handle(record)
        others = [line for line in data["lines"] if _EXPECTED not in line]
        if others:
            self._print({**data, "lines": others}, ignore_prefix)
