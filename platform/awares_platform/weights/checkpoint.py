"""Reads a policy's weights from a directory with one or more safetensors files."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from safetensors import safe_open
from torch import Tensor

from awares_platform.weights.manifest import Shapes


class Checkpoint(Mapping[str, Tensor]):
    """A mapping from tensor names to tensors. Each access reads the tensor from its file.

    Example:
        Checkpoint(policy)["lm_head.weight"]
    """

    def __init__(self, directory: Path) -> None:
        self._files: dict[str, Path] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        for path in sorted(directory.glob("*.safetensors")):
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118, a safe_open is not a mapping
                    self._files[name] = path
                    self._shapes[name] = tuple(file.get_slice(name).get_shape())

    @property
    def shapes(self) -> Shapes:
        """The shape of each tensor by name, from the files' headers."""
        return self._shapes

    def __getitem__(self, name: str) -> Tensor:
        with safe_open(self._files[name], framework="pt") as file:
            return file.get_tensor(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)
