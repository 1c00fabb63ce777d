"""Creates a directory for each volume of a pod, and replaces mount paths with the directories."""

import base64
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.simulator.api.objects import Body, Objects

Rewrite = Callable[[str], str]


class Paths:
    """Maps mount paths to directories. `rewrite` replaces only whole path components.

    Example:
        paths = Paths({"/etc/awares": Path("/tmp/aw/p1/v/setup")})
        paths.rewrite("--config /etc/awares/setup.toml")
    """

    def __init__(self, real: Mapping[str, Path]) -> None:
        self.real = {path.rstrip("/"): place for path, place in real.items()}
        longest = sorted(self.real, key=len, reverse=True)
        self._pattern = (
            re.compile(rf"(?<![\w./-])({'|'.join(map(re.escape, longest))})(?![\w.-])")
            if longest
            else None
        )

    def rewrite(self, text: str) -> str:
        """Replace each mount path in `text` with its directory."""
        return (
            self._pattern.sub(lambda match: str(self.real[match[1]]), text)
            if self._pattern
            else text
        )


def lay_out(objects: Objects, pod: Body, root: Path, claims: Path) -> dict[str, Path]:
    """Create the directory of every volume. Return a map from volume names to directories.

    Raises NotFound if a ConfigMap or Secret is missing.
    """
    places: dict[str, Path] = {}
    for volume in pod["spec"].get("volumes") or []:
        place = places[volume["name"]] = root / "v" / volume["name"]
        claim = volume.get("persistentVolumeClaim")
        if claim:
            place = places[volume["name"]] = (
                claims / pod["metadata"]["namespace"] / claim["claimName"]
            )
        place.mkdir(parents=True, exist_ok=True)
        for source in [volume, *(volume.get("projected") or {}).get("sources", [])]:
            for name, data in _files(objects, pod["metadata"]["namespace"], source).items():
                (place / name).parent.mkdir(parents=True, exist_ok=True)
                (place / name).write_bytes(data)
    return places


def _files(objects: Objects, namespace: str, source: Mapping[str, Any]) -> dict[str, bytes]:
    config, secret = source.get("configMap"), source.get("secret")
    if config:
        body = objects.get(objects.kinds.of("v1", "ConfigMap"), namespace, config["name"])
        return _chosen(
            config, {name: text.encode() for name, text in (body.get("data") or {}).items()}
        )
    if secret:
        body = objects.get(
            objects.kinds.of("v1", "Secret"), namespace, secret.get("secretName") or secret["name"]
        )
        return _chosen(
            secret,
            {name: base64.b64decode(text) for name, text in (body.get("data") or {}).items()},
        )
    return {}


def _chosen(source: Mapping[str, Any], data: dict[str, bytes]) -> dict[str, bytes]:
    items = source.get("items")
    return {item["path"]: data[item["key"]] for item in items} if items else data


def mounted(container: Body, places: Mapping[str, Path]) -> dict[str, Path]:
    """Return a map from the container's mount paths to directories."""
    found = {}
    for mount in container.get("volumeMounts") or []:
        found[mount["mountPath"]] = places[mount["name"]] / mount.get("subPath", "")
    return found


def rewrite_files(pod: Body, places: Mapping[str, Path], rewrite: Rewrite) -> None:
    """Apply `rewrite` to every file in the volumes that contain a ConfigMap.

    Such a file, for example setup.toml, may contain mount paths and names of Services.
    """
    for volume in pod["spec"].get("volumes") or []:
        projected = any(
            "configMap" in source for source in (volume.get("projected") or {}).get("sources", [])
        )
        if volume.get("configMap") or projected:
            for path in places[volume["name"]].rglob("*"):
                if path.is_file():
                    path.write_text(rewrite(path.read_text("utf-8")), "utf-8")
