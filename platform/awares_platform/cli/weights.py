"""Implements `awares weights ls|show|verify|pull|merge|pin|unpin` for the weights of a run.

A version is published whole (an anchor), as changes from an earlier version (a delta), or both.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from awares.errors import ConfigError
from awares_platform.config import PlatformConfig
from awares_platform.config.method import MethodConfig
from awares_platform.config.policy import PolicyConfig
from awares_platform.method.family import model_family
from awares_platform.runtime.progress import Progress
from awares_platform.store import ObjectStore
from awares_platform.training import inputs
from awares_platform.training.export import write_policy
from awares_platform.training.merge import write_merged
from awares_platform.training.source import PolicyName
from awares_platform.training.start import starting_policy
from awares_platform.weights import Manifest, Received, Subscriber, WeightsError
from awares_platform.weights.adapter import fold_adapter
from awares_platform.weights.checkpoint import Checkpoint
from awares_platform.weights.head import Form, Hop
from awares_platform.weights.retention import pin, pinned, unpin

_UNITS = ("B", "kB", "MB", "GB", "TB")


def run(config: PlatformConfig, action: str, version: int | None, out: Path | None) -> None:
    """Run one action. Raises WeightsError if the run's weights are missing or damaged."""
    store = ObjectStore.from_config(config.store)
    if action == "merge":
        print(merge(store, config, version, out))
        return
    subscriber = Subscriber(store, config.run.name)
    newest = subscriber.head()
    if newest is None:
        raise WeightsError(
            f"run {config.run.name} has published no weights in {config.store.url}; "
            "`awares grpo` does"
        )
    if action == "ls":
        print("\n".join(listing(subscriber, pinned(store, config.run.name))))
    elif action == "show":
        print("\n".join(details(subscriber, newest if version is None else version)))
    elif action == "verify":
        verify(subscriber, version)
    elif action == "pull":
        chosen = newest if version is None else version
        print(pull(subscriber, chosen, config.policy, config.method, config.grpo.start, out))
    else:
        keep(subscriber, action, newest if version is None else version)


def listing(subscriber: Subscriber, pins: set[int]) -> Iterator[str]:
    """Yield a header line, then one line for each published version, newest first."""
    yield f"{'version':>8}  {'step':>6}  {'changed':>8}  forms"
    for entry in subscriber.seen.published:
        manifest = subscriber.manifest(entry.version)
        changed = "" if manifest.changed_ratio is None else f"{manifest.changed_ratio:.2%}"
        forms = ", ".join(_form(form) for form in entry.forms)
        mark = "  pinned" if entry.version in pins else ""
        yield f"{entry.version:>8}  {manifest.step:>6}  {changed:>8}  {forms}{mark}"


def details(subscriber: Subscriber, version: int) -> Iterator[str]:
    """Yield lines about a version: its anchor and delta, its processor, and its tensors."""
    manifest = subscriber.manifest(version)
    published, hops = subscriber.seen.find(version), subscriber.seen.path(version)
    assert published is not None, "its manifest was found through HEAD"
    yield (
        f"version    {version} of run {subscriber.run}, optimizer step {manifest.step}, "
        f"writer epoch {manifest.epoch}"
    )
    yield f"forms      {', '.join(_form(form) for form in published.forms)}"
    if hops is None:
        yield "joining    not possible: its base is no longer kept"
    else:
        versions = " -> ".join(str(hop.version) for hop in hops)
        yield f"joining    {versions}: {_bytes(sum(hop.form.size for hop in hops))}"
    processor, template = manifest.processor[:12], manifest.template[:12]
    yield f"policy     processor {processor or 'unknown'}, template {template or 'unknown'}"
    if manifest.adapter is not None:
        yield f"adapter    LoRA, scale {manifest.adapter:g}"
    pieces = manifest.pieces()
    unencoded = _bytes(_unencoded(manifest))
    yield f"tensors    {len(manifest.tensors)} in {len(pieces)} pieces, {unencoded} unencoded"
    if manifest.changed_ratio is not None:
        yield f"changed    {manifest.changed_ratio:.3%} of the elements"
    counts = Counter(piece.kind for piece in pieces)
    sizes = Counter[str]()
    for piece in pieces:
        sizes[piece.kind] += piece.length
    for kind, count in counts.most_common():
        yield f"  {kind:<8} {count:>6} pieces  {_bytes(sizes[kind]):>9}"


def verify(subscriber: Subscriber, version: int | None) -> None:
    """Download and verify all published anchors and deltas, or only those of `version`.

    A delta is skipped if its base version is damaged or deleted.

    Raises WeightsError after all downloads if something is damaged.
    """
    hops, damaged = _hops(subscriber, version), []
    states: dict[int, Received] = {}
    with Progress("verify", total=len(hops), unit="manifests") as progress:
        for index, hop in enumerate(hops):
            base = hop.form.base
            if base is not None and base not in states:
                print(
                    f"version {hop.version}: not verified, because its base version {base} is "
                    "damaged or no longer kept"
                )
                continue
            try:
                states[hop.version] = subscriber.walk([hop], None if base is None else states[base])
                print(f"version {hop.version}: {_form(hop.form)} verified")
            except WeightsError as error:
                damaged.append(str(error))
                print(f"DAMAGED  {error}")
            progress.advance(1)
            needed = {later.form.base for later in hops[index + 1 :]}
            states = {past: held for past, held in states.items() if past in needed}
    if damaged:
        raise WeightsError(
            f"{len(damaged)} of {len(hops)} manifests of run {subscriber.run} lead to damaged "
            f"weights; the first: {damaged[0]}"
        )


def pull(
    subscriber: Subscriber,
    version: int,
    policy: PolicyConfig,
    method: MethodConfig,
    start: PolicyName,
    out: Path | None,
) -> Path:
    """Write a version as a policy directory for transformers and vLLM, and return the directory.

    Processor and configuration come from the policy `start`, with which GRPO began.

    Raises ConfigError if the directory is not empty.
    """
    directory = _empty(out or Path(f"{subscriber.run}-v{version}"))
    family = model_family(policy)
    begun = starting_policy(subscriber.store, subscriber.run, start, policy, family)
    source = begun.weights
    received = subscriber.receive(version)
    state = dict(received.state)
    if (scale := received.manifest.adapter) is not None:
        base = Checkpoint(source)
        state = {**base, **fold_adapter(state, scale, base, family.current_name)[0]}
    directory.mkdir(parents=True, exist_ok=True)
    trained = inputs.published(received.manifest, method)
    if trained is None:
        # Unlike all other policies, the base policy has no recorded input settings.
        trained = method if begun.name == "base" else inputs.recorded(source, method)
    write_policy(state, source, directory, family, trained)
    return directory


def merge(
    store: ObjectStore, config: PlatformConfig, version: int | None, out: Path | None
) -> Path:
    """Write the merged policy of a finished LoRA run, and return its directory.

    Raises ConfigError if a version is given, or if the directory is not empty.
    """
    if version is not None:
        raise ConfigError(
            f"--version {version} has no effect on merge, which merges the finished policy; "
            "`awares weights pull` merges a version"
        )
    run = config.run.name
    directory = _empty(out or Path(f"{run}-merged"))
    family = model_family(config.policy)
    write_merged(store, run, config.policy.base, family, config.method, directory)
    return directory


def _empty(directory: Path) -> Path:
    if directory.is_dir() and any(directory.iterdir()):
        raise ConfigError(f"--out {directory} is not empty; name another directory")
    return directory


def keep(subscriber: Subscriber, action: str, version: int) -> None:
    """Pin or unpin a version. Retention never deletes a pinned version."""
    if subscriber.seen.find(version) is None:
        subscriber.manifest(version)  # Raises WeightsError, because the version is not published.
    (pin if action == "pin" else unpin)(subscriber.store, subscriber.run, version)
    print(f"version {version} of run {subscriber.run} is {action}ned")


def _hops(subscriber: Subscriber, version: int | None) -> list[Hop]:
    if version is None:
        return [
            Hop(entry.version, form)
            for entry in reversed(subscriber.seen.published)
            for form in entry.forms
        ]
    if subscriber.seen.find(version) is None:
        subscriber.manifest(version)  # Raises WeightsError, because the version is not published.
    hops = subscriber.seen.path(version)
    if hops is None:
        raise WeightsError(
            f"run {subscriber.run}: no published form leads to version {version}: "
            "its base is no longer kept"
        )
    return [*hops]


def _unencoded(manifest: Manifest) -> int:
    import torch

    return sum(
        (piece.end - piece.start) * getattr(torch, entry.dtype).itemsize
        for entry in manifest.tensors
        for piece in entry.pieces
    )


def _form(form: Form) -> str:
    return (
        f"anchor {_bytes(form.size)}"
        if form.base is None
        else f"delta on {form.base} {_bytes(form.size)}"
    )


def _bytes(size: float) -> str:
    for unit in _UNITS[:-1]:
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} {_UNITS[-1]}"
