"""AwaRes-Mini: a small benchmark of when and where to crop, and a tiny Qwen2.5-VL for it."""

from pathlib import Path

POLICY = Path(__file__).parent / "policy_weights"
"""The pre-trained policy, as a Hugging Face directory with a model card."""


def __getattr__(name: str) -> object:
    # Import the benchmark lazily: it needs scikit-learn, and POLICY does not.
    if name == "generate_split":
        from awares.mini.benchmark import generate_split

        return generate_split
    raise AttributeError(name)
