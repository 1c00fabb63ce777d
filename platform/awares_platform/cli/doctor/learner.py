"""Defines the actor with which `awares doctor` tests a learner rank.

The actor runs on a node where the grpo job would run a learner rank.
"""

from typing import Any

from awares_platform.cli.doctor import collective
from awares_platform.cli.doctor.collective import Exchange
from awares_platform.cli.doctor.finding import Finding
from awares_platform.cli.doctor.node import check_node
from awares_platform.config import PlatformConfig
from awares_platform.runtime.ports import free_port
from awares_platform.store import ObjectStore
from awares_platform.training.source import resolve


class LearnerRank:
    """One rank of the learner, as a Ray actor. The driver must call each method on all ranks.

    Only `address` is called on rank 0 alone.
    """

    def __init__(self, config: PlatformConfig, rank: int, ranks: int) -> None:
        self._config, self._rank, self._ranks = config, rank, ranks
        self._gpu = config.grpo.learner_gpus > 0
        self._backend = "nccl" if self._gpu else "gloo"
        self._trainee: Any = None

    def node(self, store: ObjectStore) -> list[Finding]:
        """Check this rank's node."""
        return check_node(self._config.policy.base, self._config.grpo.learner_gpus, store)

    def address(self) -> str:
        """Return `host:port` for the process group. The driver calls this method only on rank 0."""
        import ray.util

        return f"{ray.util.get_node_ip_address()}:{free_port('')}"

    def all_reduce(self, address: str) -> Exchange:
        """Join the process group, and sum a tensor over all ranks."""
        collective.join(address, self._rank, self._ranks, self._backend)
        return collective.exchange(self._backend, self._device())

    def load(self, adapter: bool) -> int:
        """Load the base policy, and return the number of trained parameters.

        If `adapter` is true, only an adapter is trained. Otherwise, the policy's own weights are
        trained.
        """
        import torch

        from awares_platform.cli.doctor.trainee import Trainee
        from awares_platform.method.family import model_family

        config = self._config
        torch.set_num_threads(config.grpo.learner_threads)
        if self._trainee is None:
            store = ObjectStore.from_config(config.store)
            family = model_family(config.policy)
            source = resolve(store, config.run.name, "base", config.policy.base, family)
            self._trainee = Trainee(config, source, self._device())
        return self._trainee.load(adapter)

    def update(self, store: ObjectStore, run: str) -> Any:
        """Train the policy, publish its weights in the run `run`, and return this rank's Update."""
        return self._trainee.update(store, run)

    def _device(self) -> Any:
        import torch

        return torch.device("cuda:0" if self._gpu else "cpu")
