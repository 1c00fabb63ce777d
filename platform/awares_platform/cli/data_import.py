"""Defines the commands `awares import` and `awares data`."""

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from awares.errors import DataError
from awares_platform.cli.command import MINI, Overrides, Setup
from awares_platform.cli.guarded import guarded
from awares_platform.config import PlatformConfig, load
from awares_platform.config.data import DataConfig
from awares_platform.config.imports import SourceFormat
from awares_platform.config.run import RunConfig

if TYPE_CHECKING:
    from awares_platform.store import ObjectStore

_DRY_RUN = tyro.conf.arg(help="Show ten rows as they would be read, and write nothing.")


def import_data(
    name: tyro.conf.Positional[str],
    source: tyro.conf.Positional[str],
    overrides: Overrides = (),
    /,
    config: Setup = MINI,
    split: str = "train",
    image: str = "",
    question: str = "",
    answer: str = "",
    boxes: str = "",
    format: SourceFormat | None = None,
    root: str = "",
    dry_run: Annotated[bool, _DRY_RUN] = False,
) -> int:
    """Import images and questions as a data set.

    A killed import goes on where it stopped. A finished one is not repeated. An empty column is
    guessed, and the guess is printed. `awares config imports` lists further settings.

    Args:
        name: Name of the data set in the store. Set data.name to it for the jobs.
        source: A file or a directory, local or as s3://bucket/prefix. hf://owner/name, or
            hf://owner/name/folder, is a data set of the Hugging Face hub.
        split: Split to write, such as train or test.
        image: Column with the image.
        question: Column with the question.
        answer: Column with the accepted answer or answers.
        boxes: Column with the boxes around the evidence.
        format: Format of the files; by default their names tell it.
        root: Directory or s3:// prefix of the images that are named by paths.
    """
    flags = {"image": image, "question": question, "answer": answer, "boxes": boxes, "root": root}
    flags["format"] = format or ""
    given = [f"imports.{key}={value}" for key, value in flags.items() if value]

    def execute() -> None:
        settings = load(config, (*overrides, *given, f"data.name={name}"))
        print(_import(settings, source, split, dry_run))

    return guarded("import", execute)


def _import(config: PlatformConfig, source: str, split: str, dry: bool) -> str:
    from awares_platform.data.intake import job
    from awares_platform.data.intake.hub import downloaded
    from awares_platform.runtime import session
    from awares_platform.store import ObjectStore

    request = job.ImportRequest(config.data.name, downloaded(source), split)
    if dry and not source.startswith("s3://"):
        return job.dry_run(request, config.imports, config.store)
    with session.store_session(config) as resolved:
        if dry:
            return job.dry_run(request, config.imports, resolved.store)
        store = ObjectStore.from_config(resolved.store)
        result = job.run(request, config.imports, config.data, store)
        return result.summary(config.store.url)


def data(
    action: tyro.conf.Positional[Literal["ls", "show", "stats", "rm", "mix", "agreement", "sheet"]],
    name: tyro.conf.Positional[str] = "",
    overrides: Overrides = (),
    /,
    config: Setup = MINI,
    split: str = "",
    out: Path | None = None,
) -> int:
    """List, show, count, delete or mix the data sets in the store, or compare two judges.

    `show` writes a page with thumbnails of fifty samples. `stats` counts rows, images, kinds,
    labels, crops and the rows that an import has left out. `rm` deletes a split or a whole data
    set, but no images. `mix` writes the data set data.name from those that data.mix names.
    `agreement` asks curate.second_judge about a curated set, and prints Cohen's kappa. `sheet`
    writes the datasheet of a curated set as a page and as JSON.

    Args:
        action: What to do.
        name: Name of the data set; ls and mix need none. For agreement and sheet, the default is
            the curated set of the run.
        split: Split of the data set. The default is all splits, and for show the first one.
        out: File of the page that show or sheet writes; by default <name>-<split>.html. It ends in
            .html, and the datasheet's JSON has the same name with the ending .json.
    """

    def execute() -> None:
        settings = load(config, overrides)
        from awares_platform.cli import data_sets
        from awares_platform.runtime import session
        from awares_platform.store import ObjectStore

        if action in ("show", "sheet"):
            data_sets.require_page(out)
        with session.store_session(settings) as resolved:
            store = ObjectStore.from_config(resolved.store)
            if action == "agreement":
                measure = importlib.import_module("awares_platform.curate.agreement").measure
                curated = name or _curated(settings.run, settings.data, store)
                print(measure(store, settings.data, settings.curate, curated).summary())
                return
            if action == "sheet":
                datasheet = importlib.import_module("awares_platform.curate.datasheet").datasheet
                facts = datasheet(
                    store, settings.curate, name or _curated(settings.run, settings.data, store)
                )
                print(data_sets.sheet(store, settings.data, facts, out))
                return
            print(data_sets.run(store, settings.data, action, name, split, out))

    return guarded("data", execute)


def _curated(run: RunConfig, data: DataConfig, store: "ObjectStore") -> str:
    """Return the name of the curated set that this run has written.

    Raises DataError if the run has written none.
    """
    from awares_platform.training.curated_set import recorded_labels

    found = recorded_labels(store, run.name, data, ["curate"]).labels
    if not found:
        raise DataError(
            f"run {run.name!r} has written no curated set: run `awares curate`, or give the "
            f"name of a set that `awares data ls` lists"
        )
    return found
