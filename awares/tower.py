"""Shares the output of a frozen vision tower among several models, such as policy and reference.

The tower runs once per batch, and computes each distinct view once.

    policy's forward ----+                      +--> first call: tower(U distinct views)
                         +--> tower.forward ----+
    reference's forward -+                      +--> other calls: the same features

Axes of the tensors:
    I  images in the prompts of the batch, in order of appearance
    U  distinct views among these images
    N  patches of all images
    D  pixel values of one patch
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import MethodType
from typing import Any

import torch
from torch import Tensor

from awares.batch import Batch


class SharedTower:
    """Shares the vision features of a batch among `models` with identical vision towers.

    `path` is the module path of the tower. Nothing is shared if a tower is trained.

    Example:
        tower = SharedTower([policy, reference], "model.visual")
        with tower.batch(batch):
            theirs = policy_logprobs(reference, batch)
            ours = policy_logprobs(policy, batch)
    """

    def __init__(self, models: Sequence[Any], path: str) -> None:
        self._views_I: Tensor | None = None
        self._output: Any = None
        towers = [model.get_submodule(path) for model in models]
        if not any(weight.requires_grad for tower in towers for weight in tower.parameters()):
            for tower in towers:
                tower.forward = MethodType(self._sharing(tower.forward), tower)

    @contextmanager
    def batch(self, batch: Batch) -> Iterator[None]:
        """Share the features of `batch` among the forward passes of the block."""
        self._views_I = batch.image_views_I
        try:
            yield
        finally:
            self._views_I = self._output = None

    def _sharing(self, original: Any) -> Any:
        """Return a method that replaces the tower's method `original`.

        In a `batch` block, only the first forward pass calls `original`. All passes of the block
        use the output of this call.
        """

        def forward(tower: Any, pixel_values: Tensor, grid_thw: Tensor, **options: Any) -> Any:
            if self._views_I is None:
                return original(pixel_values, grid_thw=grid_thw, **options)
            views, patches = self._views_I.tolist(), grid_thw.prod(1).tolist()
            firsts = [views.index(view) for view in range(max(views) + 1)]
            if self._output is None:
                values = pixel_values.split(patches)
                with torch.no_grad():
                    self._output = original(
                        torch.cat([values[first] for first in firsts]),
                        grid_thw=grid_thw[firsts],
                        **options,
                    )
            return repeated(self._output, [patches[first] for first in firsts], views)

        return forward


def repeated(output: Any, patches: Sequence[int], views: Sequence[int]) -> Any:
    """Return a tower's output for all images, built from its output for the distinct views.

    `patches` holds the number of patches of each distinct view. `views` holds the index of the
    view that each image shows.
    """

    def repeat(value: Any) -> Any:
        if isinstance(value, list | tuple):
            return type(value)(repeat(item) for item in value)
        if value is None:
            return None
        merged = sum(patches) // len(value)
        parts = value.split([count // merged for count in patches])
        return torch.cat([parts[view] for view in views])

    # Leave out the largest tensor, because the language model does not read it.
    unread = {"last_hidden_state"}
    return type(output)(
        **{name: repeat(value) for name, value in output.items() if name not in unread}
    )
