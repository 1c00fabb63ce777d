"""Describes an import on the terminal."""

from collections.abc import Sequence
from dataclasses import dataclass

from awares_platform.data.intake.columns import SourceColumns
from awares_platform.data.intake.reading import Draft
from awares_platform.data.intake.writing import ImportCounts, total
from awares_platform.data.manifest import split_prefix

_MOST_TEXT = 60


@dataclass(frozen=True, slots=True)
class ImportResult:
    """The outcome of an import. `resumed` is true if an earlier call had finished the import.

    Example:
        print(ImportResult("invoices", "train", counts).summary("s3://bucket"))
    """

    name: str
    split: str
    counts: ImportCounts
    resumed: bool = False

    def summary(self, url: str) -> str:
        """Return the numbers of rows and refusals as text. `url` is the store's address."""
        lines = [
            f"{rows} rows in {url}/{split_prefix(self.name, split)}"
            for split, rows in self.counts.rows.items()
        ]
        if self.counts.renamed:
            lines.append(f"{self.counts.renamed} rows got another id, because theirs was taken")
        return "\n".join([*lines, *_refused(self.counts)])


def _refused(counts: ImportCounts) -> list[str]:
    if not counts.refused:
        return ["no row was left out"]
    lines = [f"{total(counts.refused)} rows were left out:"]
    for reason, count in sorted(counts.refused.items(), key=lambda item: -item[1]):
        lines.append(f"  {count:>6}  {reason}")
        lines += [f"          {example}" for example in counts.examples.get(reason, ())]
    return lines


def preview(
    kind: str, files: int, columns: SourceColumns, drafts: Sequence[Draft], counts: ImportCounts
) -> str:
    """Return a text that shows how an import would read the first rows of a source."""
    lines = [f"format   {kind}, {files} file{'s' * (files != 1)}", f"columns  {columns}", ""]
    for draft in drafts:
        sample, picture = draft.sample, draft.picture
        lines.append(f"{sample.sample_id}  {_size(picture.size, picture.original)}")
        lines.append(f"  question  {_short(sample.question)}")
        lines.append(f"  answers   {_short(' | '.join(sample.answers))}")
        if sample.evidence:
            lines.append(f"  boxes     {_short(', '.join(map(str, sample.evidence)))}")
        if sample.kind or sample.scorer:
            named = (("kind", sample.kind), ("scorer", sample.scorer))
            lines.append(f"  {', '.join(f'{name} {value}' for name, value in named if value)}")
    return "\n".join([*lines, "", *_refused(counts), "nothing was written (--dry-run)"])


def _size(size: tuple[int, int], original: tuple[int, int]) -> str:
    shown = f"{size[0]} x {size[1]}"
    return shown if size == original else f"{shown}, shrunk from {original[0]} x {original[1]}"


def _short(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= _MOST_TEXT else f"{flat[:_MOST_TEXT]}..."
