"""A policy's weights on the disk, in as many safetensors files as there are."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from safetensors import safe_open
from torch import Tensor

from awares_platform.weights.manifest import Shapes


class Checkpoint(Mapping[str, Tensor]):
    """Tensors by name, each read from its file when it is asked for.

    Example:
        Checkpoint(policy)["lm_head.weight"]
    """

    def __init__(self, directory: Path) -> None:
        self._files: dict[str, Path] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        for path in sorted(directory.glob("*.safetensors")):
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118, no mapping
                    self._files[name], self._shapes[name] = (
                        path,
                        tuple(file.get_slice(name).get_shape()),
                    )

    @property
    def shapes(self) -> Shapes:
        """Tensor names and shapes, from the files' headers."""
        return self._shapes

    def __getitem__(self, name: str) -> Tensor:
        with safe_open(self._files[name], framework="pt") as file:
            return file.get_tensor(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)
