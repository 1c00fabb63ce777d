"""Writes parquet files like those of the six published benchmarks, but with one to three rows."""

import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image


def _docvqa(identity: str, question: str, answers: list[str]) -> dict[str, Any]:
    types = ["handwritten", "form"]
    return {
        "questionId": identity,
        "question": question,
        "question_types": types,
        "answers": answers,
    }


_LETTER = "Which?\nA. red\nB. blue\nPlease answer directly with only the letter."
# Each key holds the path of a file in a benchmark's folder, a space, and the folder's name.
ROWS: dict[str, list[dict[str, Any]]] = {
    "data/test-00000-of-00001.parquet ChartQA": [
        {"type": "human_test", "question": "How many bars?", "answer": "14"},
        {"type": "augmented_test", "question": "Which year?", "answer": "2012 "},
    ],
    "DocVQA/validation-00000-of-00001.parquet DocVQA": [
        _docvqa("49153", "Which form?", ["W-2", "w-2"]),
        _docvqa("24580", "What date?", ["1 May"]),
    ],
    "data/test-00000-of-00001.parquet OCRBench": [
        {"dataset": "IIIT5k", "question_type": "Regular Text Recognition", "answer": ["STOP"]},
        {"dataset": "HME100k", "question_type": "Handwritten Mathematical", "answer": ["x ^ 2"]},
    ],
    "data/test-00000-of-00001.parquet POPE": [
        {"question_id": "1", "question": "Is there a dog?", "answer": "yes", "category": category}
        for category in ("adversarial", "popular", "random")
    ],
    "data/test-00000-of-00001.parquet RealWorldQA": [
        {"question": _LETTER, "answer": "B"},
        {"question": "How many? Answer with a number.", "answer": "3"},
    ],
    "data/test-00000-of-00001.parquet vstar-bench": [
        {
            "text": "What colour? (A) red (B) blue",
            "label": "A",
            "category": "direct_attributes",
            "question_id": "0",
        }
    ],
}


def write(root: Path, owner: str, size: tuple[int, int] = (112, 112)) -> None:
    """Write all benchmarks below `root`, each in the folder of its Hugging Face account.

    `owner` is the account of all benchmarks but OCRBench, which belongs to echo840.
    """
    for number, (place, rows) in enumerate(ROWS.items()):
        file, _, name = place.partition(" ")
        folder = root / ("echo840" if name == "OCRBench" else owner) / name
        path = folder / file
        path.parent.mkdir(parents=True)
        shared = name in ("POPE", "DocVQA")
        columns = {} if name != "OCRBench" else {"question": " what is written? "}
        full = [
            {**columns, **row, "image": _image(10 * number + (0 if shared else place), size)}
            for place, row in enumerate(rows)
        ]
        pq.write_table(pa.Table.from_pylist(full), path)
    # The published data sets also have these splits and folders, which the import must not read.
    for other in (f"{owner}/POPE/Full/popular-0.parquet", f"{owner}/DocVQA/DocVQA/test-0.parquet"):
        (root / other).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"question": ["?"]}), root / other)


def _image(number: int, size: tuple[int, int]) -> dict[str, Any]:
    buffer = io.BytesIO()
    Image.new("RGB", size, (number, 255 - number, 99)).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": f"{number}.png"}
