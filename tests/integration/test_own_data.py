"""Tests the commands of the README's section "Your own data", from a directory to an answer.

The directory has 200 document pages in ten formats. The judge and the grounding model sometimes
send faulty replies.
"""

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests import document_pages
from tests.chat_server import Body, ChatServer, message, serving
from tests.integration.our_lines import OUR_LINE, foreign

pytestmark = [pytest.mark.integration, pytest.mark.slow]
ROOT = Path(__file__).parents[2]
AWARES = [sys.executable, "-c", "from awares_platform.cli.main import main; main()"]
PAGES, UNUSABLE, KEY = 200, 6, "the-secret-of-the-judge"
QUESTION = re.compile(r"(?:What|Which|When) [^?]+\?")
SMALL = """
[method]
max_pixels = 313_600

[engine]
kv_cache_gib = 0.25

[sft]
epochs = 1

[grpo]
steps = 1
groups_per_step = 2
group_size = 2

[evaluate]
latency_questions = 1
"""


class Models:
    """The judge and the grounding model of the test.

    A checksum of the question decides which fault the reply has.
    """

    def __init__(self, pages: list[document_pages.Page]) -> None:
        self.pages = {page.question: page for page in pages}
        # The number of requests about each question, for each of the two models.
        self.asked: dict[str, Counter[str]] = {"judge": Counter(), "grounder": Counter()}
        # The questions that the judge refuses.
        self.refused: set[str] = set()
        self._lock = threading.Lock()

    def judge(self, body: Body, _: int) -> tuple[int, Any]:
        question, nth, draw = self._count("judge", body)
        verdict = "2" if draw % 3 else "1"
        match draw % 9 if nth == 1 else -1:
            case 0:
                return 429, "slow down"
            case 1:
                return 500, {"error": {"message": "out of memory"}}
            case 2:
                return 200, f"<think>Answer 1 is vague.</think>\n{verdict}"
            case 3:
                return 200, f'```json\n{{"verdict": {verdict}.0}}\n```'
            case 4:
                return 200, message(None)
            case 5:
                return 200, "Both answers have their merits."
        if draw % 17 == 0:
            self.refused.add(question)
            return 200, message("I'm sorry, I can't help with that.", refusal="policy")
        return 200, json.dumps({"verdict": int(verdict)})

    def grounder(self, body: Body, _: int) -> tuple[int, Any]:
        question, nth, draw = self._count("grounder", body)
        box = self.pages[question].thousandths
        match draw % 7 if nth == 1 else -1:
            case 0:
                return 503, "loading the model"
            case 1:
                return 200, f"```json\n{json.dumps([{'bbox_2d': box, 'label': 'value'}])}\n```"
            case 2:
                return 200, json.dumps({"question": [], "answer": [box, [5, 5, 5, 5]]})
            case 3:
                return 200, message(None)
            case 4:
                return 200, "The value stands near the bottom of the page."
        return 200, json.dumps({"question": [], "answer": [box]})

    def _count(self, kind: str, body: Body) -> tuple[str, int, int]:
        """Count the request. Return the question, how often it was asked, and its checksum."""
        [question, *_] = QUESTION.findall(json.dumps(body["messages"]))
        with self._lock:
            self.asked[kind][question] += 1
            return question, self.asked[kind][question], zlib.crc32(question.encode())


@pytest.fixture(scope="module")
def pages() -> list[document_pages.Page]:
    return document_pages.pages(PAGES, seed=0)


@pytest.fixture(scope="module")
def models(pages: list[document_pages.Page]) -> Models:
    return Models(pages)


@pytest.fixture(scope="module")
def servers(models: Models) -> Iterator[dict[str, ChatServer]]:
    with ExitStack() as stack:
        found = {name: stack.enter_context(serving()) for name in ("judge", "grounder")}
        found["judge"].reply, found["grounder"].reply = models.judge, models.grounder
        found["judge"].header = {"Retry-After": "1"}
        yield found


@pytest.fixture(scope="module")
def section() -> str:
    """Return the README's section "Your own data"."""
    readme = (ROOT / "README.md").read_text()
    [found] = re.findall(r"^## Your own data\n(.*?)^## ", readme, re.MULTILINE | re.DOTALL)
    return found


@pytest.fixture(scope="module")
def team(
    tmp_path_factory: pytest.TempPathFactory,
    pages: list[document_pages.Page],
    servers: dict[str, ChatServer],
    section: str,
) -> Path:
    """Write document pages and the README's setup with smaller sizes. Return their directory."""
    directory = tmp_path_factory.mktemp("team")
    (directory / "pages").mkdir()
    document_pages.write(directory / "pages", pages)
    [setup] = re.findall(r"```toml\n(.*?)```", section, re.DOTALL)
    for name, server in servers.items():
        assert f"http://{name}:8000/v1" in setup
        setup = setup.replace(f"http://{name}:8000/v1", server.url)
    setup = setup.replace("[curate]\n", "[curate]\nmin_confidence = 0.0\n")
    (directory / "mine.toml").write_text(setup + SMALL)
    return directory


def environment() -> dict[str, str]:
    path = os.pathsep.join([str(ROOT), str(ROOT / "platform")])
    found = {**os.environ, "PYTHONPATH": path, "JUDGE_KEY": KEY, "OMP_NUM_THREADS": "1"}
    found.pop("RAY_ADDRESS", None)
    return found


def shell(team: Path, command: list[str], status: int = 0) -> subprocess.CompletedProcess[str]:
    """Run `awares` in the team's directory. Its exit status must be `status`."""
    done = subprocess.run(
        [*AWARES, *command],
        env=environment(), cwd=team, capture_output=True, text=True, timeout=400,
    )  # fmt: skip
    assert done.returncode == status, (command, done.stdout, done.stderr)
    if status:
        return done
    assert foreign(done.stderr, OUR_LINE) == [], (command, done.stderr)
    return done


@contextmanager
def served(team: Path, command: list[str]) -> Iterator[str]:
    """Run `awares serve` with these arguments, and yield the endpoint's address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with subprocess.Popen(
        [*AWARES, *command, f"serve.port={port}"],
        env=environment(), cwd=team, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        process_group=0,
    ) as process:  # fmt: skip
        said = []
        try:
            assert process.stdout
            for line in process.stdout:
                said.append(line)
                if "/v1/chat/completions" in line:
                    break
            else:
                pytest.fail("".join(said))
            yield f"http://127.0.0.1:{port}"
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            rest = process.communicate(timeout=90)[0]
        assert process.returncode == 0, ("".join(said), rest)


@pytest.mark.timeout(1500)
def test_the_commands_of_the_readme_lead_from_pages_to_an_answer(
    team: Path, section: str, models: Models, servers: dict[str, ChatServer]
) -> None:
    commands = [shlex.split(line)[1:] for line in re.findall(r"^    (awares .+)$", section, re.M)]
    assert [command[0] for command in commands] == [
        "import", "import", "data", "curate", "data", "sft", "grpo", "evaluate", "serve", "ask",
    ]  # fmt: skip
    dry, imports, stats, curate, sheet, *jobs, serve, ask = commands
    assert "nothing was written" in shell(team, dry).stdout
    said = shell(team, imports).stdout
    train, test = (int(rows) for rows in re.findall(r"^(\d+) rows in ", said, re.M))
    assert train + test == PAGES and test >= PAGES // 20
    assert f"{UNUSABLE} rows were left out" in said
    said = shell(team, stats).stdout
    assert all(reason in said for reason in ("cannot be decoded", "not found", "no answer"))
    assert "has written no curated set" in shell(team, sheet, status=2).stderr

    said = shell(team, curate).stdout
    counts = re.search(r"([\d,]+) HR \(.+?\), ([\d,]+) LR, ([\d,]+) without a label", said)
    assert counts, said
    high, low, without = (int(count.replace(",", "")) for count in counts.groups())
    assert high + low + without == train
    assert without == len(models.refused) > 0 and high > low > 0
    shell(team, sheet)
    facts = json.loads(next(team.glob("*-curated-*.json")).read_text())
    assert facts["labels"] == {"HR": high, "LR": low}
    assert facts["dropped boxes"] > 0 and facts["used"]["judge"]["requests"] >= train
    asked = {name: counts.total() for name, counts in models.asked.items()}
    assert "from earlier" in shell(team, curate).stdout
    assert asked == {name: counts.total() for name, counts in models.asked.items()}

    for job in jobs:
        shell(team, job)
    with served(team, serve) as url:
        reply = shell(team, [*ask, "--endpoint", url]).stdout
    assert "% of the full image's" in reply and "answer" in reply
    for server, authorized in ((servers["judge"], True), (servers["grounder"], False)):
        keys = {headers.get("Authorization") for headers in server.headers}
        assert keys == ({f"Bearer {KEY}"} if authorized else {None})
    files = [path for path in team.rglob("*") if path.is_file()]
    assert not [path for path in files if KEY.encode() in path.read_bytes()]
