"""A client that asks the endpoint all the time, during an upgrade."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.simulator.tools.release import Answer, ask

_PAUSE_S = 0.2


@dataclass(slots=True)
class Asked:
    """The answers and failures so far.

    Example:
        Asked(answers=[Answer(200, {...})], failures=[])
    """

    answers: list[Answer] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def longest(self) -> int:
        """The longest turn of the newest answer in tokens; -1 without an answer."""
        return self.answers[-1].body["usage"]["completion_tokens"] if self.answers else -1


@contextmanager
def asking(url: str, image: bytes, question: str, token: str) -> Iterator[Asked]:
    """Send one request after the other, in a thread, until the end of the block."""
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
