"""Writes table.json: generated pairs, and the scores and prompts of the installed lmms-eval.

Run the script once for each version of lmms-eval. A run keeps the scores of other versions.

    pip install lmms-eval==0.7.1
    PYTHONPATH=.:platform python -m tests.lmms_eval.make_table
"""

import json
from dataclasses import astuple
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any

from tests.lmms_eval.cases import DOCUMENTS, NOTED, ScoredPair, pairs
from tests.lmms_eval.published import VERSIONS, pope_f1, prompt, scores

TABLE = Path(__file__).parent / "table.json"
_COUNT = 1400
_SEED = 19


def main() -> None:
    """Score the pairs, and write the table."""
    known = VERSIONS[version("lmms-eval")]
    chosen = [*NOTED, *pairs(_SEED, _COUNT)]
    table = json.loads(TABLE.read_text()) if TABLE.exists() else {}
    table["pairs"] = [astuple(one) for one in chosen]
    table.setdefault("scores", {})[known] = scores(chosen)
    table.setdefault("pope_f1", {})[known] = pope_f1([one for one in chosen if one.name == "pope"])
    table["prompts"] = {name: prompt(name, document) for name, document in DOCUMENTS.items()}
    TABLE.write_text(_lines(table))


def read() -> tuple[list[ScoredPair], dict[str, Any]]:
    """Return the pairs and the whole table."""
    table = json.loads(TABLE.read_text())
    found = [
        ScoredPair(name, said, tuple(answers), question)
        for name, said, answers, question in table["pairs"]
    ]
    return found, table


def _lines(table: dict[str, Any]) -> str:
    """Return the table as JSON, with a line for each pair and for each other key."""
    rows = ",\n".join(json.dumps(row, ensure_ascii=False) for row in table["pairs"])
    rest = chain((name, table[name]) for name in ("scores", "pope_f1", "prompts"))
    parts = [f'"{name}": {json.dumps(value, ensure_ascii=False)}' for name, value in rest]
    return "{" + ",\n".join([f'"pairs": [\n{rows}\n]', *parts]) + "}\n"


if __name__ == "__main__":
    main()
