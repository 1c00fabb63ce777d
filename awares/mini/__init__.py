"""AwaRes-Mini: a small benchmark of when and where to crop, and a tiny Qwen2.5-VL policy."""

from pathlib import Path

POLICY = Path(__file__).parent / "policy_weights"
"""The pre-trained policy, as a Hugging Face directory with a model card."""


def __getattr__(name: str) -> object:
    # The benchmark needs scikit-learn, so this module imports the benchmark only on demand.
    if name == "generate_split":
        from awares.mini.benchmark import generate_split

        return generate_split
    raise AttributeError(name)
