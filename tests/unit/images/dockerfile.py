"""Parses a Dockerfile into stages, and checks the rules of this project's container images.

The rules cover what the chart relies on: the user, the writable directories, and the contents.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

BUILD_TOOLS = (
    "g++",
    "gcc",
    "clang",
    "make",
    "cmake",
    "ninja-build",
    "build-essential",
    "git",
    "cargo",
    "golang",
    "nodejs",
    "npm",
    "python3-pip",
)
"""Debian packages that only the build needs. The final stage may not install them."""
WRITABLE = ("/home/awares", "/tmp")
CACHES = (
    "XDG_CACHE_HOME",
    "HF_HOME",
    "TORCHINDUCTOR_CACHE_DIR",
    "TRITON_CACHE_DIR",
    "VLLM_CACHE_ROOT",
    "NUMBA_CACHE_DIR",
    "TMPDIR",
)
_SECRET = re.compile(r"(SECRET|PASSWORD|TOKEN|ACCESS_KEY|CREDENTIAL)", re.IGNORECASE)


@dataclass(slots=True)
class Stage:
    """One stage of a Dockerfile: a FROM and the instructions after it.

    Example:
        Stage("final", "base", [("USER", "1000:1000")])
    """

    name: str
    base: str
    """The image or the stage from which this stage starts."""
    steps: list[tuple[str, str]] = field(default_factory=list)
    """The name and the argument text of each instruction."""

    def all(self, instruction: str) -> list[str]:
        """Return the argument texts of all instructions with this name."""
        return [text for kind, text in self.steps if kind == instruction]

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables that the stage sets with ENV."""
        return dict(pair.split("=", 1) for text in self.all("ENV") for pair in text.split())


def parse(text: str) -> list[Stage]:
    """Return the stages in order. Comments are removed, and continued lines are joined."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    stages: list[Stage] = []
    for line in re.sub(r"\\\n", " ", "\n".join(lines)).splitlines():
        kind, _, rest = line.strip().partition(" ")
        if kind == "FROM":
            base, _, name = rest.partition(" AS ")
            stages.append(Stage(name, base))
        elif kind and stages:
            stages[-1].steps.append((kind, " ".join(rest.split())))
    return stages


def faults(text: str) -> list[str]:
    """Return one message for each broken rule. The list is empty for a valid Dockerfile."""
    stages = parse(text)
    final = stages[-1]
    return [
        *_bases(text, stages),
        *_user(final),
        *_content(final),
        *_writes(final),
        *_locked(stages),
        *_secrets(stages),
    ]


def _bases(text: str, stages: list[Stage]) -> Iterator[str]:
    names = {stage.name for stage in stages}
    for stage in stages:
        if stage.base not in names and "@${PYTHON_DIGEST}" not in stage.base:
            yield f"FROM {stage.base} takes no digest"
    image = re.search(r"^ARG PYTHON_IMAGE=(\S+)", text, re.MULTILINE)
    tag = image[1].rpartition("/")[2].partition(":")[2] if image else ""
    if tag in ("", "latest"):
        yield "the base image has no tag"


def _user(final: Stage) -> Iterator[str]:
    if not final.all("USER") or final.all("USER")[-1] != "1000:1000":
        yield (
            "the final stage does not run as 1000:1000 (numeric: the kubelet checks "
            "runAsNonRoot by it)"
        )
    if final.all("WORKDIR")[-1:] != ["/opt/awares"]:
        yield "the working directory is not /opt/awares"


def _content(final: Stage) -> Iterator[str]:
    for text in final.all("RUN"):
        for tool in BUILD_TOOLS:
            if re.search(rf"(?<![\w+-]){re.escape(tool)}(?![\w+-])", text):
                yield f"the final stage installs {tool}"
        if re.search(r"\b(uv|pip) (pip )?(install|sync)\b", text):
            yield "the final stage installs Python packages"
        if "apt-get install" in text and (
            "--no-install-recommends" not in text or "rm -rf /var/lib/apt/lists" not in text
        ):
            yield "apt-get install leaves recommended packages or package lists"
    if not any("/usr/local/bin/pip*" in text for text in final.all("RUN")):
        yield "the final stage keeps pip"
    for text in final.all("COPY"):
        if not text.startswith("--from=build "):
            yield f"the final stage copies {text} from the context"
    if final.all("ADD"):
        yield "ADD fetches what nobody checked"


def _writes(final: Stage) -> Iterator[str]:
    environment = final.environment
    if environment.get("HOME") != "/home/awares":
        yield "HOME is not /home/awares"
    if environment.get("PATH", "").split(":")[0] != "/opt/venv/bin":
        yield "ray and awares are not first on PATH"
    for name in CACHES:
        if not environment.get(name, "").startswith(WRITABLE):
            yield f"{name} is not below a writable directory"
    if environment.get("PYTHONDONTWRITEBYTECODE") != "1":
        yield "Python would write bytecode below a read-only root"


def _locked(stages: list[Stage]) -> Iterator[str]:
    installs = [
        text
        for stage in stages
        for text in stage.all("RUN")
        if re.search(r"\buv pip (install|sync)\b", text)
    ]
    if not any("uv pip sync --require-hashes" in text for text in installs):
        yield "packages are installed without hashes"
    for text in installs:
        if "uv pip install" in text and "--no-deps" not in text:
            yield "a package is installed with dependencies that no lock names"


def _secrets(stages: list[Stage]) -> Iterator[str]:
    for stage in stages:
        for kind in ("ARG", "ENV"):
            for text in stage.all(kind):
                if _SECRET.search(text):
                    yield f"{kind} {text.partition('=')[0]} would stay in the image's history"


def sources(stage: Stage) -> list[str]:
    """Return the paths that a stage copies from the build context."""
    copied = [text.split() for text in stage.all("COPY") if not text.startswith("--from")]
    return [source for words in copied for source in words[:-1]]


def ignored(path: str, rules: Path) -> bool:
    """Return whether the .dockerignore file `rules` excludes `path`.

    The file excludes everything except the paths on its lines that start with "!".
    """
    allowed = [line[1:] for line in rules.read_text().splitlines() if line.startswith("!")]
    return not any(path == entry or path.startswith(f"{entry}/") for entry in allowed)
