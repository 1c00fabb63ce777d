"""Defines all commands of `awares <command> --config FILE section.key=value ...`.

Each command imports its module only after the arguments are parsed, so that --help is fast.
guarded.py defines the exit statuses.
"""

import importlib
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from io import TextIOWrapper
from json import dumps
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from awares.evaluation.benchmarks import BenchmarkName
from awares.tokens import Size
from awares_platform.cli.command import MINI, Overrides, Setup
from awares_platform.cli.data_import import data, import_data
from awares_platform.cli.guarded import guarded
from awares_platform.config import PlatformConfig, load
from awares_platform.plan.assumptions import Assumptions

PAPER = Path("awares-7b")
FOLLOWING = {
    "curate": ("sft", "next"),
    "sft": ("grpo", "next"),
    "grpo": ("evaluate", "next"),
    "evaluate": ("report", "page with all results"),
}
"""Maps each job to the next command, and to the words that are printed before this command."""
DESCRIPTION = (
    "Train and serve a vision-language policy that asks for the crops that it needs.\n"
    "`awares --version` prints the versions of the project and of its packages."
)
H100 = Assumptions()
_JSON = tyro.conf.arg(help="Print the keys as JSON.")
_FRESH = tyro.conf.arg(help="Discard an earlier quickstart run and its labels.")

commands = tyro.extras.SubcommandApp()


@commands.command
def quickstart(
    overrides: Overrides = (), /, config: Setup = MINI, fresh: Annotated[bool, _FRESH] = False
) -> int:
    """Run all five jobs on AwaRes-Mini, ask the served policy a question and write a report."""
    return _run(
        "quickstart",
        "awares_platform.cli.quickstart",
        config,
        ("run.name=quickstart", *overrides),
        fresh=fresh,
    )


commands.command(name="import")(import_data)
commands.command(name="data")(data)


@commands.command
def curate(overrides: Overrides = (), /, config: Setup = MINI) -> int:
    """Decide for each question whether it needs crops, and which crops."""
    return _run("curate", "awares_platform.curate.job", config, overrides)


@commands.command
def sft(overrides: Overrides = (), /, config: Setup = MINI) -> int:
    """Fine-tune the base policy on the curated demonstrations."""
    return _run("sft", "awares_platform.sft.job", config, overrides)


@commands.command
def grpo(overrides: Overrides = (), /, config: Setup = MINI) -> int:
    """Train the fine-tuned policy with GRPO. Rollouts and learner run at the same time."""
    return _run("grpo", "awares_platform.grpo.job", config, overrides)


@commands.command
def evaluate(
    overrides: Overrides = (),
    /,
    config: Setup = MINI,
    benchmark: tuple[BenchmarkName, ...] = (),
    benchmark_root: str = "",
) -> int:
    """Compare policies on held-out questions, or on benchmarks of the paper.

    Args:
        benchmark: Benchmarks to evaluate on, instead of the data set of the setup.
        benchmark_root: Directory or s3:// prefix with their published data sets.
    """
    given = [f"evaluate.benchmarks={dumps(benchmark)}"] if benchmark else []
    given += [f"evaluate.benchmark_root={benchmark_root}"] if benchmark_root else []
    return _run("evaluate", "awares_platform.evaluate.job", config, (*overrides, *given))


@commands.command
def serve(overrides: Overrides = (), /, config: Setup = MINI) -> int:
    """Serve a policy over HTTP until SIGTERM or Ctrl-C."""
    return _run("serve", "awares_platform.serve.job", config, overrides)


@commands.command
def ask(
    image: tyro.conf.Positional[Path],
    question: tyro.conf.Positional[str],
    /,
    endpoint: str = "http://127.0.0.1:8000",
    token_env: str = "AWARES_TOKEN",
) -> int:
    """Ask a served policy one question about an image, and show the crops that it asks for.

    Args:
        image: An image file.
        question: What to ask about it.
        endpoint: Address of `awares serve`.
        token_env: Environment variable with the endpoint's bearer token, if it needs one.
    """

    def execute() -> None:
        importlib.import_module("awares_platform.cli.ask").run(image, question, endpoint, token_env)

    return guarded("ask", execute)


@commands.command
def report(
    overrides: Overrides = (),
    /,
    config: Setup = MINI,
    against: str = "",
    version: int | None = None,
) -> int:
    """Write a run's report.html again from the stored results.

    Args:
        against: Name of another run. The report then compares the two runs.
        version: Number of a version. The viewer then also shows journalled episodes of it.
    """

    def execute() -> None:
        settings = load(config, overrides)
        from awares_platform.data.images import Images
        from awares_platform.data.intake.benchmark import splits_of
        from awares_platform.runtime import session
        from awares_platform.store import ObjectStore

        with session.store_session(settings) as resolved:
            make = importlib.import_module("awares_platform.report").run
            store = ObjectStore.from_config(resolved.store)
            images = Images.of(store, resolved.data, splits_of())
            print(make(resolved, images, against, version))

    return guarded("report", execute)


@commands.command
def weights(
    action: tyro.conf.Positional[Literal["ls", "show", "verify", "pull", "merge", "pin", "unpin"]],
    run: tyro.conf.Positional[str],
    overrides: Overrides = (),
    /,
    config: Setup = MINI,
    version: int | None = None,
    out: Path | None = None,
) -> int:
    """List, show, verify, pull, merge, pin or unpin the weights that a run has published.

    `verify` downloads versions and checks their hashes. `pull` writes a version as a checkpoint.
    `merge` writes the finished policy of a LoRA run with its adapter merged into the weights. `pin`
    keeps a version in the store until it is unpinned.

    Args:
        action: What to do.
        run: Name of the run.
        version: Number of the version. The default is the newest, and for verify all versions.
        out: Output directory; by default <run>-v<version> for pull, and <run>-merged for merge.
    """

    def execute() -> None:
        settings = load(config, (*overrides, f"run.name={run}"))
        from awares_platform.runtime import session

        with session.store_session(settings) as resolved:
            tool = importlib.import_module("awares_platform.cli.weights")
            tool.run(resolved, action, version, out)

    return guarded("weights", execute)


@commands.command
def keys(
    action: tyro.conf.Positional[Literal["add", "remove", "ls"]],
    file: tyro.conf.Positional[Path],
    name: tyro.conf.Positional[str] = "",
    /,
    requests_per_minute: int | None = None,
    visual_tokens_per_day: int | None = None,
) -> int:
    """Add, remove or list the API keys in the file that serve.keys_file names.

    `add` prints a new key, which is stored nowhere. The file holds only its hash. Running endpoints
    read the changed file within seconds.

    Args:
        action: What to do.
        file: The keys file. `add` makes it if it is absent.
        name: Name of the key's owner, for add and remove.
        requests_per_minute: Limit of all keys of this name together. The default is no limit.
        visual_tokens_per_day: Limit of all keys of this name together. The default is no limit.
    """

    def execute() -> None:
        limits = (requests_per_minute, visual_tokens_per_day)
        importlib.import_module("awares_platform.cli.keys").run(action, file, name, *limits)

    return guarded("keys", execute)


@commands.command
def plan(
    overrides: Overrides = (),
    /,
    config: Setup = PAPER,
    json: bool = False,
    data: bool = False,
    assume: tyro.conf.OmitArgPrefixes[Assumptions] = H100,
) -> int:
    """Estimate a run's memory per GPU, episodes in flight, S3 traffic, hours and GPU-hours.

    The command needs no GPU. Without --data it reads only the setup.

    Args:
        json: Print all figures as JSON.
        data: Read the sizes of the data set's images from the store, for the retained token ratios.
        assume: The assumptions about hardware and data.
    """

    def execute() -> None:
        settings = load(config, overrides)
        from awares_platform.plan import make, render

        sheet = make(settings, assume, _image_sizes(settings) if data else ())
        print(dumps(sheet.as_json(), indent=1) if json else render(sheet))

    return guarded("plan", execute)


def _image_sizes(settings: PlatformConfig) -> list[Size]:
    """Return the sizes of some images of the data set's training split."""
    from awares_platform.data.image_sizes import train_sizes
    from awares_platform.runtime import session
    from awares_platform.store import ObjectStore

    with session.store_session(settings) as resolved:
        return train_sizes(ObjectStore.from_config(resolved.store), settings.data)


@commands.command
def doctor(
    overrides: Overrides = (),
    /,
    config: Setup = MINI,
    json: Path | None = None,
    seconds: float = 120.0,
    wait: float = 300.0,
) -> int:
    """Check the cluster, the store and the policy before a run, and name the remedy of each fault.

    The exit status is 1 if a check has failed, and 2 if the setup is wrong. The findings are also
    in <run.directory>/<run.name>/doctor.json, and in the store below runs/<run.name>/.

    Args:
        json: A further file for the findings.
        seconds: Time limit of all checks together.
        wait: Seconds to wait for the cluster's nodes, in addition to the time limit.
    """
    failed: list[bool] = []

    def execute() -> None:
        settings = load(config, overrides)
        from awares_platform.method.parts import check_parts

        check_parts("doctor", settings)
        from awares_platform.runtime import session

        with session.session(settings, check_store=False) as resolved:
            examine = importlib.import_module("awares_platform.cli.doctor.job").run
            failed.append(examine(resolved, seconds, wait, json))

    return guarded("doctor", execute) or int(any(failed))


@commands.command
def config(section: tyro.conf.Positional[str] = "", /, json: Annotated[bool, _JSON] = False) -> int:
    """List the configuration keys with type, default and help.

    Args:
        section: A section or a key, such as grpo or grpo.steps. The default is all keys.
    """

    def execute() -> None:
        from awares_platform.cli import config_keys as listing

        found = listing.keys(section)
        text = dumps([asdict(key) for key in found], indent=1) if json else listing.render(found)
        try:
            print(text, flush=True)
        except BrokenPipeError:
            # The process that reads the pipe, such as head, has ended. Python flushes stdout again
            # at exit, so redirect stdout to /dev/null.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    return guarded("config", execute)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command in `arguments`. The console script `awares` calls this function."""
    print_in_any_locale()
    arguments = sys.argv[1:] if arguments is None else arguments
    if list(arguments) == ["--version"]:
        from awares_platform.runtime.run import versions

        found = {"awares-train": "not installed, run from its sources", **versions()}
        print("\n".join(f"{name} {version}" for name, version in found.items()))
        sys.exit(0)
    sys.exit(commands.cli(prog="awares", args=arguments, description=DESCRIPTION))


def job(command: Callable[..., int]) -> None:
    """Run the command of one job. The scripts in jobs/ call this function."""
    print_in_any_locale()
    sys.exit(tyro.cli(command))


def print_in_any_locale() -> None:
    """Make stdout escape each character that the locale lacks, for example as \\xf6."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _run(name: str, module: str, config: Path, overrides: Sequence[str], **options: Any) -> int:
    """Load the configuration, open a session and call the function `run` of `module`.

    `options` are further arguments of `run`. If the job returns a result, print its summary and the
    next command.
    """

    def execute() -> None:
        settings = load(config, overrides)
        from awares_platform.method.parts import check_parts

        check_parts(name, settings)
        from awares_platform.runtime import session

        with session.session(settings) as resolved:
            result = importlib.import_module(module).run(resolved, **options)
        if result is not None:
            from awares_platform.cli.terminal_table import for_terminal

            summary = for_terminal(result.summary(settings.store.url))
            print(f"{summary}\n{following(name, config, overrides)}")

    return guarded(name, execute)


def following(name: str, config: Path, overrides: Sequence[str]) -> str:
    """Return a line with the next command after the job `name`, with the same arguments."""
    job, purpose = FOLLOWING[name]
    setup = () if config == MINI else ("--config", str(config))
    return f"{purpose}: {shlex.join(['awares', job, *setup, *overrides])}"
