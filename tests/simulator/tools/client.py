"""Sends requests to the endpoint in a thread, to show whether requests fail during an upgrade."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.simulator.tools.release import Answer, ask

_PAUSE_S = 0.2


@dataclass(slots=True)
class Asked:
    """The answers and failures that the client has received so far.

    Example:
        Asked(answers=[Answer(200, {...})], failures=[])
    """

    answers: list[Answer] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def newest_tokens(self) -> int:
        """Return the `completion_tokens` of the newest answer, or -1 before the first answer."""
        return self.answers[-1].body["usage"]["completion_tokens"] if self.answers else -1


@contextmanager
def asking(url: str, image: bytes, question: str, token: str) -> Iterator[Asked]:
    """Start a thread that sends one request after another until the end of the `with` block."""
    asked, stop = Asked(), threading.Event()

    def run() -> None:
        while not stop.wait(_PAUSE_S):
            try:
                answer = ask(url, image, question, token)
            except OSError as error:
                asked.failures.append(f"{type(error).__name__}: {error}")
                continue
            if answer.status == 200:
                asked.answers.append(answer)
            else:
                asked.failures.append(f"{answer.status} {answer.body}")

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield asked
    finally:
        stop.set()
        thread.join()
