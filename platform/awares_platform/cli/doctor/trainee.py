"""Loads the base policy into the trainer of one rank, trains an update and publishes it.

The learning rate grows until the logprobs of the canary, a set of fixed sequences, have changed
enough.
"""

import gc
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from torch import Tensor

from awares.batch import collate
from awares.chat import ChatFormat
from awares.logprobs import policy_logprobs
from awares_platform.cli.doctor.questions import two_canaries
from awares_platform.config import PlatformConfig
from awares_platform.config.policy import PolicyConfig
from awares_platform.engine.canary import Logprobs, learner_logprobs, to_extra
from awares_platform.method.environment import system_prompt
from awares_platform.method.family import model_family
from awares_platform.store import ObjectStore
from awares_platform.training import lora, zero
from awares_platform.training.policy import interface, load_policy, load_processor
from awares_platform.weights import Identity, Publisher

RANK = 8
"""LoRA rank of a tested adapter if the setup trains whole weights. The paper uses 8."""
MOVED_NATS = 0.2
_FIRST_RATE, _GROWTH, _STEPS = 1e-5, 4.0, 8


@dataclass(frozen=True, slots=True)
class Update:
    """An update that one rank has published.

    Example:
        Update(version=1, moved=0.3, steps=4, size=135000, seconds=0.4)
    """

    version: int
    moved: float
    """Root mean square of the changes of the canary's logprobs, in nats."""
    steps: int
    """Number of optimizer steps."""
    size: int
    """Number of published bytes on rank 0, and 0 on any other rank."""
    seconds: float
    """Duration of the publication."""


def policy_of(policy: PolicyConfig, adapter: bool) -> PolicyConfig:
    """Return settings that train an adapter if `adapter` is true, and otherwise whole weights.

    If `policy` already does so, return it unchanged.
    """
    if adapter == bool(policy.lora_rank):
        return policy
    changes = {"lora_rank": RANK, "train_vision": False} if adapter else {"lora_rank": 0}
    return policy.model_copy(update=changes)


class Trainee:
    """One rank of the trainer. All ranks must make the same calls."""

    def __init__(self, config: PlatformConfig, source: Path, device: torch.device) -> None:
        """Read the processor in `source`, the directory of the base policy."""
        method, family = config.method, model_family(config.policy)
        self._config, self._source, self._device = config, source, device
        self._served = getattr(torch, config.engine.dtype)
        self._processor = load_processor(source, family, method.min_pixels, method.max_pixels)
        chat = ChatFormat(self._processor.tokenizer, system_prompt(method), family.chat)
        self._canary, self._questions = two_canaries(chat, family, method)
        self._engine: Any = None

    def load(self, adapter: bool) -> int:
        """Load the base policy into DeepSpeed, and return the number of trained parameters.

        If `adapter` is true, only an adapter is trained. With ZeRO-3, a rank holds only its slices
        of the weights.
        """
        self._engine = None
        gc.collect()
        config, settings = self._config, self._config.grpo
        gpu = settings.learner_gpus > 0
        if gpu:
            torch.cuda.empty_cache()
        policy = policy_of(config.policy, adapter)
        model = load_policy(
            self._source,
            policy,
            config.run.seed,
            partitioned=settings.zero_stage == 3,
            gpu=gpu,
        ).to(self._device)
        learning = [tensor for tensor in model.parameters() if tensor.requires_grad]
        # `ds_numel` is the size of the whole tensor, of which ZeRO-3 keeps only a slice here.
        trained = sum(getattr(tensor, "ds_numel", tensor.numel()) for tensor in learning)
        self._engine = zero.initialize(model, zero.settings_of(settings, policy.dtype), gpu)
        return trained

    def update(self, store: ObjectStore, run: str) -> Update:
        """Train until the canary's logprobs have changed enough, and publish the weights.

        The training takes at most eight steps.
        """
        start = changed = self._logprobs()
        rate, steps, moved = _FIRST_RATE, 0, 0.0
        while moved < MOVED_NATS and steps < _STEPS:
            zero.step(self._engine, [self._loss()], rate)
            changed = self._logprobs()
            moved = _agree(_distance(changed, start))
            rate, steps = rate * _GROWTH, steps + 1
        started = time.monotonic()
        publisher = self._publisher(store, run)
        extra = {"canary": to_extra(self._canary, changed, start)}
        version = publisher.begin(zero.owned(self._engine, self._served), extra, step=1)
        publisher.wait()
        last = publisher.last
        seconds = time.monotonic() - started
        return Update(version, moved, steps, last.size if last else 0, seconds)

    def _publisher(self, store: ObjectStore, run: str) -> Publisher:
        processor, template = interface(self._source)
        return Publisher(
            store,
            run,
            rank=torch.distributed.get_rank(),
            ranks=torch.distributed.get_world_size(),
            agree=_agree,
            identity=Identity(processor, template, lora.scale(self._engine.module)),
            threads=self._config.grpo.learner_threads,
        )

    def _logprobs(self) -> Logprobs:
        """Return the canary's logprobs with weights rounded to the engine's data type."""
        with zero.rounded(self._engine, self._served):
            return learner_logprobs(self._engine, self._processor, self._canary, self._device)

    def _loss(self) -> Tensor:
        """Return the negative mean logprob of the target tokens of the questions to train on."""
        asked = self._questions
        images = asked.originals.__getitem__
        batch = collate(asked.items, images, self._processor, asked.limits, asked.low_ratio)
        batch = batch.to(self._device)
        logprobs_BT = policy_logprobs(self._engine, batch)
        return -logprobs_BT[batch.action_mask_BT.bool()].mean()


def _distance(one: Logprobs, other: Logprobs) -> float:
    """Return the root mean square of the differences between two sets of logprobs."""
    pairs = [pair for rows in zip(one, other, strict=True) for pair in zip(*rows, strict=True)]
    return math.sqrt(math.fsum((a - b) ** 2 for a, b in pairs) / len(pairs))


def _agree(value: Any) -> Any:
    """Return rank 0's `value` on every rank. Every rank must call this function."""
    values = [value]
    torch.distributed.broadcast_object_list(values, src=0)
    return values[0]
