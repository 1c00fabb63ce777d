"""Tests the repository's directories, file names and lengths, class names and imports."""

import ast
import re
import subprocess
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[2]
TOP = {".ci", ".github", ".gitignore", "LICENSE", "Makefile", "README.md", "pyproject.toml"}
TOP |= {"awares", "helm", "jobs", "manifests", "platform", "tests"}
CATCH_ALL = {"utils", "util", "common", "helpers", "misc"}
SIMULATOR = {
    "api": set(),
    "network": {"api"},
    "node": {"api", "network"},
    "controllers": {"api"},
    "kuberay": {"api", "network", "node", "controllers"},
    "controller": {"api", "network", "node", "controllers", "kuberay"},
    "tools": {"api", "network", "node", "controllers", "kuberay", "controller"},
}
"""Maps each room of tests/simulator to the rooms that it may import.

A room is a module or a directory directly below tests/simulator.
"""


def tracked() -> list[Path]:
    """Return the paths of all files that git does not ignore, relative to the root."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [Path(line) for line in listing.stdout.splitlines() if (ROOT / line).exists()]


def test_platform_is_no_package() -> None:
    assert not (ROOT / "platform" / "__init__.py").exists(), (
        "platform/__init__.py would shadow Python's own module platform"
    )


def test_no_file_holds_a_path_of_a_developers_machine() -> None:
    """Check that no file contains a home directory, or an absolute path of a Python traceback.

    Exceptions are the homes of `awares` and `me`, and files of tracebacks below /opt. The container
    images and the examples use these paths.
    """
    foreign = re.compile(
        rb"(?<![\w.])/(?:root|home/(?!awares/|me/)\w+|Users/\w+)/|File \\*\"/(?!opt/)|"
        + re.escape(f"{ROOT}/".encode())
    )
    here = Path(__file__).relative_to(ROOT)
    files = [path for path in tracked() if path != here and (ROOT / path).is_file()]
    assert [str(path) for path in files if foreign.search((ROOT / path).read_bytes())] == []


def test_top_level_entries_are_the_agreed_ones() -> None:
    assert {path.parts[0] for path in tracked()} <= TOP


def test_tests_have_no_packages_and_distinct_names() -> None:
    files = [path for path in tracked() if path.parts[0] == "tests" and path.suffix == ".py"]
    assert not [path for path in files if path.name == "__init__.py"]
    assert not [path for path in files if "platform" in path.parts[:-1]], (
        "tests/**/platform would shadow Python's own module platform"
    )
    names = Counter(path.name for path in files if path.name.startswith("test_"))
    assert not [name for name, count in names.items() if count > 1]


def test_job_scripts_hold_no_logic() -> None:
    scripts = sorted((ROOT / "jobs").glob("*.py"))
    assert [path.stem for path in scripts] == [
        "curate",
        "doctor",
        "evaluate",
        "grpo",
        "serve",
        "sft",
    ]
    for path in scripts:
        lines = path.read_text().splitlines()
        assert len(lines) < 60
        assert not [
            line for line in lines if line.startswith("import ") and line.split()[1] not in ("sys",)
        ]


def test_no_module_has_a_catch_all_name() -> None:
    assert not [
        path
        for path in tracked()
        if path.suffix == ".py" and (path.stem in CATCH_ALL or CATCH_ALL & {*path.parts})
    ]


def test_end_to_end_tests_hold_only_tests() -> None:
    files = [path for path in tracked() if path.parts[:2] == ("tests", "e2e")]
    assert [path for path in files if not path.name.startswith(("test_", "conftest."))] == []


def test_the_simulator_holds_no_tests_and_its_rooms_import_one_way() -> None:
    place = ROOT / "tests" / "simulator"
    files = sorted(place.rglob("*.py"))
    assert {path.relative_to(place).parts[0].removesuffix(".py") for path in files} == {*SIMULATOR}
    assert [path for path in files if path.name.startswith("test_")] == []
    wrong: list[str] = []
    for path in files:
        room = path.relative_to(place).parts[0].removesuffix(".py")
        imported = re.findall(r"^\s*(?:from|import) tests\.(\w+)\.?(\w*)", path.read_text(), re.M)
        allowed = SIMULATOR[room] | {room}
        wrong += [
            f"{path.relative_to(place)} imports tests.{package}.{name}"
            for package, name in imported
            if package == "e2e" or (package == "simulator" and name not in allowed)
        ]
    assert wrong == []


def test_no_two_public_classes_share_a_name() -> None:
    """Check that no public class name occurs in two modules of awares and awares_platform."""
    places: dict[str, list[str]] = {}
    for root in (ROOT / "awares", ROOT / "platform" / "awares_platform"):
        for path in sorted(root.rglob("*.py")):
            for name in public_classes(ast.parse(path.read_text("utf-8"))):
                places.setdefault(name, []).append(str(path.relative_to(ROOT)))
    shared = {name: found for name, found in places.items() if len(found) > 1}
    assert not shared, f"rename classes until no two modules define the same name: {shared}"


def public_classes(module: ast.Module) -> list[str]:
    """Return the names of a module's public top-level classes and type aliases."""
    classes = [node.name for node in module.body if isinstance(node, ast.ClassDef)]
    aliases = [
        node.targets[0].id
        for node in module.body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and isinstance(node.value, ast.Subscript)
    ]
    return [name for name in (*classes, *aliases) if not name.startswith("_") and name[0].isupper()]


MOST_LINES = 400
"""The largest number of lines of a Python file."""


def test_no_python_file_is_too_long() -> None:
    found = {
        str(path): count
        for path in tracked()
        if path.suffix == ".py"
        and (count := len((ROOT / path).read_text("utf-8").splitlines())) > MOST_LINES
    }
    assert not found, f"split these files: {found}"


MOST_POSITIONAL = 7
"""The largest allowed number of positional arguments in a call of a class."""


def test_large_records_are_built_with_keywords() -> None:
    """Check that no call of a class has more than MOST_POSITIONAL positional arguments.

    A reader cannot match a long list of positional arguments with the fields of a class.
    """
    found = [
        f"{path}:{call.lineno}"
        for path, tree in modules()
        for call in ast.walk(tree)
        if isinstance(call, ast.Call) and len(call.args) > MOST_POSITIONAL and is_class(call.func)
        if not any(isinstance(argument, ast.Starred) for argument in call.args)
    ]
    assert not found, f"name the arguments of these calls: {found}"


def is_class(function: ast.expr) -> bool:
    """Return whether the called name starts with a capital letter, as class names do."""
    name = getattr(function, "id", None) or getattr(function, "attr", "")
    return name[:1].isupper()


FEWEST_SECTIONS = 3
"""A function that uses fewer sections must take these sections, not the whole configuration."""


def test_functions_take_the_sections_that_they_use() -> None:
    """Check that a function takes the whole configuration only if it needs all of it.

    A function needs all of the configuration if it passes the configuration on, or uses at least
    FEWEST_SECTIONS sections.
    """
    found = []
    for path, tree in modules():
        for function in ast.walk(tree) if path.parts[0] == "platform" else ():
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                found += [
                    f"{path}:{function.lineno} {function.name} uses only {sorted(sections)}"
                    for sections in narrow_uses(function)
                ]
    assert not found, f"give these functions their sections: {found}"


def narrow_uses(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[set[str]]:
    """Return one set for each PlatformConfig argument that `function` takes without need.

    The set names the used sections. An argument is needed if it is passed on whole, or if at least
    FEWEST_SECTIONS sections are used.
    """
    narrow = []
    for argument in [*function.args.args, *function.args.kwonlyargs]:
        if argument.annotation is None or ast.unparse(argument.annotation) != "PlatformConfig":
            continue
        names = [
            node
            for node in ast.walk(function)
            if isinstance(node, ast.Name) and node.id == argument.arg
        ]
        owners = {
            id(node.value): node.attr
            for node in ast.walk(function)
            if isinstance(node, ast.Attribute)
        }
        sections = {owners.get(id(name), "") for name in names}
        passed_on = any(not section or section.startswith("model_") for section in sections)
        if not passed_on and len(sections) < FEWEST_SECTIONS:
            narrow.append(sections)
    return narrow


def modules() -> list[tuple[Path, ast.Module]]:
    """Return the path and the syntax tree of each Python file of the repository."""
    paths = [path for path in tracked() if path.suffix == ".py"]
    return [(path, ast.parse((ROOT / path).read_text("utf-8"))) for path in paths]
