"""Writes Ray Serve's log lines to a file, so that the terminal shows only warnings and errors.

The redirection lasts until the process ends, because Ray prints a false error some time after Serve
has stopped.
"""

import logging
from pathlib import Path
from typing import Any

from ray._private import worker

_SERVE = "ray.serve"
_EXPECTED = "ServeController.graceful_shutdown"
_FORMAT = "%(levelname).1s %(asctime)s %(name)s: %(message)s"


class ServeLog(logging.FileHandler):
    """A logging handler that writes Ray Serve's lines to a file of the run.

    Example:
        ServeLog(Path("runs/mini/serve.log")).take_over()
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        super().__init__(path, encoding="utf-8", delay=True)
        self.setFormatter(logging.Formatter(_FORMAT))

    def take_over(self) -> None:
        """Write Ray Serve's lines to the file from now on.

        The terminal then shows only the warnings and errors of Ray Serve.
        """
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
    """Replaces the function with which Ray prints lines of other processes.

    The false error that Ray prints after Serve's shutdown goes to `log`. Other lines are printed.
    """

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
