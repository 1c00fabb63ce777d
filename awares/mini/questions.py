"""Questions about a scene, with their answers and their evidence."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from awares.mini.scenes import LARGE, Item, Scene

Kind = Literal["color", "shape", "place", "digit at", "digit on", "sum", "larger"]
KINDS: dict[Kind, float] = {
    "color": 0.13,
    "shape": 0.13,
    "place": 0.14,
    "digit at": 0.2,
    "digit on": 0.2,
    "sum": 0.1,
    "larger": 0.1,
}
"""Share of each kind in the benchmark."""


@dataclass(frozen=True, slots=True)
class Question:
    """A question about a scene.

    Example:
        Question("digit on", "What digit is on the red circle?", "7", (item,), True)
    """

    kind: Kind
    text: str
    answer: str
    items: tuple[Item, ...]
    """The items that the answer depends on, in the order in which `text` names them."""
    reads: bool
    """Whether the answer depends on the digits of these items."""

    @property
    def height(self) -> int:
        """Height in pixels of the smallest digit that the answer needs.

        If the answer needs no digit, the height is LARGE[1].
        """
        return min(item.height for item in self.items) if self.reads else LARGE[1]


def ask(scene: Scene, kind: Kind, rng: np.random.Generator) -> Question:
    """Return a question of this kind about random items of the scene."""
    chosen = rng.permutation(len(scene.items))
    one, two = (scene.items[int(index)] for index in chosen[:2])
    if kind == "color":
        text = f"What color is the shape in the {one.place}?"
        return Question(kind, text, one.color, (one,), False)
    if kind == "shape":
        return Question(kind, f"What shape is in the {one.place}?", one.shape, (one,), False)
    if kind == "place":
        return Question(kind, f"Where is the {name(one)}?", one.place, (one,), False)
    if kind == "digit at":
        return Question(kind, f"What digit is in the {one.place}?", str(one.digit), (one,), True)
    if kind == "digit on":
        return Question(kind, f"What digit is on the {name(one)}?", str(one.digit), (one,), True)
    if kind == "sum":
        text = f"What is the sum of the digits on the {name(one)} and the {name(two)}?"
        return Question(kind, text, str(one.digit + two.digit), (one, two), True)
    text = f"What is the larger of the digits on the {name(one)} and the {name(two)}?"
    return Question(kind, text, str(max(one.digit, two.digit)), (one, two), True)


def name(item: Item) -> str:
    """Return an item's name in a question. All items of a scene have different names."""
    return f"{item.color} {item.shape}"


def sample_kind(rng: np.random.Generator, kinds: Sequence[Kind] = tuple(KINDS)) -> Kind:
    """Draw one of `kinds`, with probabilities in proportion to the shares in KINDS."""
    share = np.array([KINDS[kind] for kind in kinds])
    return kinds[int(rng.choice(len(kinds), p=share / share.sum()))]
