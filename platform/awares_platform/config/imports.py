"""The section [imports]: how `awares import` reads a source."""

from typing import Literal

from pydantic import Field, field_validator

from awares.evaluation.benchmarks import BenchmarkName
from awares_platform.config.base import Section

SourceFormat = Literal["auto", "parquet", "arrow", "jsonl", "json", "csv", "tar"]


class ImportsConfig(Section):
    """Settings of `awares import`, which turns rows of a source into questions about images.

    If a column name is empty, the import guesses it. A dotted name, such as `meta.question`, names
    a nested value.
    """

    format: SourceFormat = "auto"
    """Format of the source's files. "auto" tells it from their names."""
    source_split: str = ""
    """Split of the source to read, if its files or folders are named by splits. "" means the split
    that is written."""
    image: str = ""
    """Column with the image: bytes, a data: URL, a path below `root`, or an s3:// or https
    address."""
    question: str = ""
    """Column with the question."""
    answer: str = ""
    """Column with the accepted answer, or with a list of accepted answers. Of a list, the most
    frequent answer becomes the one that demonstrations give."""
    boxes: str = ""
    """Column with one box or a list of boxes around the evidence. It may be missing."""
    sample_id: str = ""
    """Column with the row's id. Without it, the id is the source file and the row's number."""
    kind: str = ""
    """Column with the kind of question, by which reports group questions. It may be missing."""
    scorer: str = "none"
    """Scorer of all rows, by its name in awares.evaluation.scorers. "none" leaves the choice to
    evaluate.scorer."""
    scorer_column: str = ""
    """Column with the name of the row's scorer. A row without one has the scorer above."""
    benchmark: Literal["none", BenchmarkName] = "none"
    """Benchmark of the paper whose published files the source holds. Its columns, prompts and
    scorers are then known, its answers stay as they are, all its rows are kept, and no image is
    shrunk."""
    box_units: Literal["pixels", "relative", "thousandths"] = "pixels"
    """Unit of the boxes: pixels of the image, fractions of its sides (0 to 1), or thousandths of
    its sides (0 to 1000)."""
    box_form: Literal["corners", "sizes"] = "corners"
    """Form of a box: left, top, right, bottom ("corners"), or left, top, width, height ("sizes").
    The boxes of a COCO file always have the second form."""
    root: str = ""
    """Directory or s3:// prefix to which image paths are relative. "" means the source's own
    directory. No path may lead out of it."""
    hosts: tuple[str, ...] = ()
    """Hosts from which images may be fetched by http or https."""
    max_side: int = Field(default=2000, ge=28)
    """A larger image is shrunk until no side exceeds this number of pixels."""
    held_out: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Share of the images whose questions go to the split test instead. All questions about an
    image go to the same split."""
    against: tuple[str, ...] = ()
    """Further splits, such as docvqa/test, whose questions and images are left out. An import of
    the split train always leaves out those of the data set's split test."""
    threads: int = Field(default=0, ge=0)
    """Number of threads that decode images. 0 means one for each CPU."""

    @field_validator("scorer")
    @classmethod
    def the_scorer_exists(cls, name: str) -> str:
        from awares.evaluation.scorers import scorer

        if name != "none":
            scorer(name)
        return name

    @field_validator("against")
    @classmethod
    def each_split_has_a_data_set(cls, splits: tuple[str, ...]) -> tuple[str, ...]:
        wrong = [split for split in splits if split.count("/") != 1 or not all(split.split("/"))]
        if wrong:
            raise ValueError(f"{wrong[0]!r} is no split: write name/split, such as docvqa/test")
        return splits
