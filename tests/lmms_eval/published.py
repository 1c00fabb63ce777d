"""Scores pairs with the tasks, filters and metrics of the installed package lmms-eval."""

import json
from collections.abc import Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from tests.lmms_eval.cases import ScoredPair

VERSIONS = {"0.7.1": "2026-03", "0.7.3": "2026-08"}
"""Maps versions of lmms-eval to the versions of our scorers that give the same scores."""

_TAGS = '[["<think>", "</think>"], ["<analysis>", "</analysis>"]]'
"""The default of lmms-eval's option --reasoning_tags."""
_SUFFIX = {
    "docvqa": "\nAnswer the question using a single word or phrase.",
    "vstar_bench": "\nAnswer with the option's letter from the given choices directly.",
}
_TASKS = {"ocrbench_math": "ocrbench"}
_METRICS = {
    "chartqa": "relaxed_overall",
    "docvqa": "anls",
    "ocrbench": "ocrbench_accuracy",
    "pope": "pope_accuracy",
    "realworldqa": "exact_match",
    "vstar_bench": "vstar_overall_acc",
}


def scores(pairs: Sequence[ScoredPair]) -> list[float]:
    """Return the score of each pair."""
    found: dict[int, float] = {}
    for task in _METRICS:
        numbers = [i for i, one in enumerate(pairs) if _TASKS.get(one.name, one.name) == task]
        if numbers:
            values = _scores(task, [pairs[i] for i in numbers])
            found |= dict(zip(numbers, values, strict=True))
    return [found[i] for i in range(len(pairs))]


def pope_f1(pairs: Sequence[ScoredPair]) -> float:
    """Return the F1 score of pairs of POPE."""
    module = import_module("lmms_eval.tasks.pope.utils")
    document = partial(_document, "pope")
    stripped = [strip(one.prediction) for one in pairs]
    rows = [
        module.pope_process_results(document(one), [said])["pope_f1_score"]
        for one, said in zip(pairs, stripped, strict=True)
    ]
    return module.pope_aggregate_f1_score(rows)


def strip(prediction: str) -> str:
    """Return the prediction without its reasoning, as lmms-eval removes it by default."""
    reasoning = import_module("lmms_eval.api.reasoning")
    return reasoning.strip_reasoning_tags(prediction, json.loads(_TAGS))


def prompt(name: str, document: dict[str, Any]) -> str:
    """Return lmms-eval's prompt for `document`, which has the published data set's columns."""
    return _task(name, [document]).doc_to_text(document)


def _document(task: str, pair: ScoredPair) -> dict[str, Any]:
    several = list(pair.answers)
    answer = {"answers": several} if task == "docvqa" else {"answer": pair.answers[0]}
    if task == "ocrbench":
        dataset = "HME100k" if pair.name == "ocrbench_math" else "IIIT5K"
        answer = {"answer": several, "dataset": dataset, "question_type": "t"}
    further = {"type": "human_test", "question_id": "1", "category": "c", "label": pair.answers[0]}
    return {"question": pair.question, "text": pair.question, **further, **answer}


def _task(name: str, documents: Sequence[dict[str, Any]]) -> Any:
    """Return lmms-eval's task `name`, with `documents` as its data set."""
    datasets, task = import_module("datasets"), import_module("lmms_eval.api.task")
    config = _config(name)
    split = config["test_split"]

    class InMemory(task.ConfigurableTask):
        def download(self, dataset_kwargs: Any = None) -> None:
            self.dataset = datasets.DatasetDict(
                {split: datasets.Dataset.from_list(list(documents))}
            )
            self.dataset_no_image = self.dataset

    return InMemory(config=config)


def _config(name: str) -> dict[str, Any]:
    load_yaml_config = import_module("lmms_eval.utils").load_yaml_config
    module = import_module(f"lmms_eval.tasks.{name}.utils")
    folder = Path(str(module.__file__)).parent
    file = folder / {"docvqa": "docvqa_val.yaml"}.get(name, f"{name}.yaml")
    # The wheel of 0.7.1 lacks the templates that two tasks include.
    if name not in ("docvqa", "vstar_bench") or list(folder.glob("_default*")):
        return load_yaml_config(str(file))
    words = {"default": {"pre_prompt": "", "post_prompt": _SUFFIX[name]}}
    shared = {"task": name, "output_type": "generate_until", "lmms_eval_specific_kwargs": words}
    if name == "docvqa":
        metric = {"metric": "anls", "aggregation": "mean", "higher_is_better": True}
        rest = {"doc_to_target": "answers", "test_split": "validation"}
        return {**shared, **rest, "doc_to_text": module.docvqa_doc_to_text, "metric_list": [metric]}
    metric = {
        "metric": "vstar_overall_acc",
        "aggregation": module.vstar_aggregate_results,
        "higher_is_better": True,
    }
    rest = {"doc_to_target": "label", "test_split": "test", "metric_list": [metric]}
    functions = {"doc_to_text": module.vstar_doc_to_text}
    return {**shared, **rest, **functions, "process_results": module.vstar_process_results}


def _scores(name: str, pairs: Sequence[ScoredPair]) -> list[float]:
    """Return the scores of pairs of one task, as lmms_eval.evaluator computes them."""
    import_module("loguru").logger.remove()
    instance = import_module("lmms_eval.api.instance").Instance
    documents = [_document(name, one) for one in pairs]
    task = _task(name, documents)
    task._instances = [
        instance("generate_until", ("",), 0, {"task": name, "repeats": 1, "doc_id": i}, [said])
        for i, said in enumerate(one.prediction for one in pairs)
    ]
    task.apply_filters()
    found = []
    for one, document in zip(task._instances, documents, strict=True):
        (text,) = one.filtered_resps.values()
        value = task.process_results(document, [strip(text)])[_METRICS[name]]
        found.append(float(value["score"] if isinstance(value, dict) else value))
    return found
