"""AwaRes-Mini: a small benchmark in which it matters when and where one looks, and a tiny Qwen2.5-VL that can answer it."""

from pathlib import Path

POLICY = Path(__file__).parent / "policy_weights"
"""The pre-trained policy as a Hugging Face directory; see the model card in it."""


def __getattr__(name: str) -> object:
    # The benchmark needs numpy and scikit-learn; whoever only wants the weights' path does not.
    if name == "generate_split":
        from awares.mini.benchmark import generate_split

        return generate_split
    raise AttributeError(name)
