"""Tests that the examples in docstrings call classes with arguments that the classes accept."""

import ast
import subprocess
import textwrap
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
Documented = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def parsed() -> dict[str, ast.Module]:
    """Return the syntax trees of all tracked Python files, by their paths."""
    listed = subprocess.run(
        ["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    return {name: ast.parse((ROOT / name).read_text()) for name in listed}


def parameters(modules: dict[str, ast.Module]) -> dict[str, list[str] | None]:
    """Return a map from the name of each class to its parameters, in order.

    The value is None if two classes share the name, or if the source does not show the parameters.
    """
    found: dict[str, list[str] | None] = {}
    for module in modules.values():
        for node in module.body:
            if isinstance(node, ast.ClassDef):
                found[node.name] = None if node.name in found else _parameters(node)
    return found


def _parameters(node: ast.ClassDef) -> list[str] | None:
    for statement in node.body:
        if isinstance(statement, ast.FunctionDef) and statement.name == "__init__":
            taken = statement.args
            names = [one.arg for one in (*taken.posonlyargs, *taken.args, *taken.kwonlyargs)]
            return None if taken.vararg or taken.kwarg else names[1:]
    if node.bases or not any("dataclass" in ast.unparse(one) for one in node.decorator_list):
        return None
    fields = (one for one in node.body if isinstance(one, ast.AnnAssign))
    return [
        one.target.id
        for one in fields
        if isinstance(one.target, ast.Name)
        and "ClassVar" not in ast.unparse(one.annotation)
        and not (one.value and "init=False" in ast.unparse(one.value))
    ]


def calls(module: ast.Module) -> Iterator[ast.Call]:
    """Yield the calls in the examples of a module's docstrings, if the examples are in Python."""
    for node in ast.walk(module):
        text = ast.get_docstring(node) if isinstance(node, Documented) else None
        for example in (text or "").split("Example:\n")[1:]:
            try:
                tree = ast.parse(textwrap.dedent(example))
            except SyntaxError:
                continue
            yield from (one for one in ast.walk(tree) if isinstance(one, ast.Call))


def fault(call: ast.Call, taken: list[str]) -> str:
    """Return what is wrong with a call of a class with the parameters `taken`, or "" if nothing."""
    if any(isinstance(one, ast.Starred) for one in call.args):
        return ""
    wrong = [one.arg for one in call.keywords if one.arg and one.arg not in taken]
    if len(call.args) + len(call.keywords) > len(taken):
        return f"{ast.unparse(call)}: more than {len(taken)} arguments"
    return f"{ast.unparse(call)}: no parameter {wrong[0]}" if wrong else ""


def test_examples_build_classes_with_the_arguments_that_they_take() -> None:
    modules = parsed()
    known, checked, faults = parameters(modules), 0, []
    for name, module in modules.items():
        for call in calls(module):
            taken = known.get(call.func.id) if isinstance(call.func, ast.Name) else None
            if taken is not None:
                checked += 1
                faults += [f"{name}: {found}"] if (found := fault(call, taken)) else []
    assert not faults, "\n".join(faults)
    assert checked > 200


def test_wrong_examples_are_found() -> None:
    def said(text: str) -> str:
        [call] = [one for one in ast.walk(ast.parse(text)) if isinstance(one, ast.Call)]
        return fault(call, ["status", "body"])

    assert said("Answer(404, b'')") == said("Answer(404, body=b'')") == said("Answer(*given)") == ""
    assert said("Answer(404, b'', ())").endswith("more than 2 arguments")
    assert said("Answer(404, text=b'')").endswith("no parameter text")
