"""The whole algorithm in one process: python -m awares.mini.tiny_grpo --steps 20

    questions, G times each --> run_episode --prompts, views--> BatchSampler --> model
                                     |                                             ^
                                 episodes --> reward --> advantages                |
                                     |                       |                     |
        the policy's logprobs, and the frozen reference's --> grpo_loss --> AdamW -+

The functions of `awares` are the method (arXiv 2603.16932). The distributed jobs call the same
functions, but run parts of this loop at the same time.

Axes: B episodes of a step, G episodes of a question, T tokens, V vocabulary.
"""

import argparse
import asyncio
import copy
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoProcessor

import awares
from awares.demonstration import demonstration
from awares.families.qwen2_5_vl import QWEN2_5_VL
from awares.mini import POLICY
from awares.mini.benchmark import generate_split
from awares.mini.digits import SplitName
from awares.mini.scenes import SIDE
from awares.mini.tokenizer import SYSTEM_PROMPT

GROUP, TOOL_WEIGHT, KL_BETA = 8, 5.0, 0.05  # The paper's G, w_t and beta (sections 3.3, 3.4).
# The numbers of questions and of optimizer updates in a step of GRPO, and the learning rates.
QUESTIONS, UPDATES, GRPO_RATE, SFT_RATE = 16, 4, 5e-4, 2e-3
WARM_UP, POOL, HELD_OUT = 24, 128, 64  # SFT steps, training questions, held-out questions.
LIMITS = QWEN2_5_VL.limits(min_pixels=28 * 28, max_pixels=SIDE * SIDE)

Samples = Sequence[awares.Sample]
Means = dict[str, float]
Sampled = tuple[list[awares.Episode], list[float], Means]  # Episodes, rewards, metrics.


class TinyPolicy:
    """The shipped policy: its model, its processor, its chat layout, and the images by hash."""

    def __init__(self) -> None:
        self.model: Any = QWEN2_5_VL.load_model(POLICY, dtype=torch.float32)[0]
        self.model.get_submodule(QWEN2_5_VL.tower).requires_grad_(False)
        self.processor: Any = AutoProcessor.from_pretrained(POLICY)
        self.chat = awares.ChatFormat(self.processor.tokenizer, SYSTEM_PROMPT, QWEN2_5_VL.chat)
        self.images: dict[str, Any] = {}

    def questions(self, split: SplitName, count: int, seed: int) -> list[awares.Sample]:
        """Draw labelled questions (section 3.2), half LR and half HR, and store the images."""
        drawn, samples = generate_split(split, 100 * count, seed), []
        for label in awares.Label:
            labelled = (pair for pair in drawn if pair[1].label is label)
            for data, sample in islice(labelled, count // 2):
                self.images[sample.image] = awares.decode(data)
                samples.append(sample)
        return samples

    def batch(self, items: Sequence[awares.Episode | awares.Demonstration]) -> awares.Batch:
        """Collate episodes or demonstrations into padded tensors."""
        images = self.images.__getitem__
        return awares.collate(items, images, self.processor, LIMITS, tool_weight=TOOL_WEIGHT)

    def logprobs(self, batch: awares.Batch, model: nn.Module) -> Tensor:
        """Return logprobs_BT of the sampled tokens under `model` (policy or reference)."""
        return awares.policy_logprobs(model, batch, blocked_ids=self.chat.blocked_ids)


class BatchSampler:
    """An `awares.Generate` that samples the next turns of all running episodes in one batch."""

    def __init__(self, policy: TinyPolicy) -> None:
        self._policy = policy
        self._waiting: list[awares.GenerateRequest] = []

    async def __call__(self, request: awares.GenerateRequest) -> awares.Generation:
        """Wait for the requests of all running episodes, sample once, and answer `request`."""
        if not self._waiting:
            # The event loop starts this task only after every running episode has sent a request.
            self._round = asyncio.create_task(self._sample())
        self._waiting.append(request)
        place, turns = len(self._waiting) - 1, self._round
        return (await turns)[place]

    @torch.no_grad()
    async def _sample(self) -> list[awares.Generation]:
        requests, self._waiting = self._waiting, []
        inputs, chat = self._inputs(requests), self._policy.chat
        output = self._policy.model.generate(
            **inputs,
            do_sample=True,
            temperature=requests[0].sampling.temperature,
            top_k=0,
            max_new_tokens=requests[0].sampling.max_tokens,
            eos_token_id=list(chat.stop_ids),
            suppress_tokens=list(chat.blocked_ids),
            return_dict_in_generate=True,
            output_scores=True,
        )
        ids_BT = output.sequences[:, inputs["input_ids"].shape[1] :]
        logprobs_BTV = torch.stack(output.scores, 1).log_softmax(-1)
        logprobs_BT = logprobs_BTV.gather(2, ids_BT.unsqueeze(2)).squeeze(2)
        rows = zip(ids_BT.tolist(), logprobs_BT.tolist(), strict=True)
        return [_turn(ids, logprobs, chat.stop_ids) for ids, logprobs in rows]

    def _inputs(self, requests: Sequence[awares.GenerateRequest]) -> dict[str, Tensor]:
        """Return the model's inputs: one placeholder per visual token, and padding on the left."""
        chat, placeholder = self._policy.chat, self._policy.chat.image_token_id
        rows: list[list[int]] = []
        for request in requests:
            counts = iter([awares.visual_tokens(view.size, LIMITS) for view in request.images])
            parts = ([i] * (next(counts) if i == placeholder else 1) for i in request.token_ids)
            rows.append([token for part in parts for token in part])
        text = chat.tokenizer.pad({"input_ids": rows}, padding_side="left", return_tensors="pt")
        views = [view for request in requests for view in request.images]
        pixels = self._policy.processor.image_processor(images=views, return_tensors="pt")
        return {**text, "mm_token_type_ids": (text["input_ids"] == placeholder).int(), **pixels}


def _turn(ids: list[int], logprobs: list[float], stops: Sequence[int]) -> awares.Generation:
    """Cut the sampled ids after the first stop token. Nothing reads the versions, so all are 0."""
    end = next((count for count, token in enumerate(ids, 1) if token in stops), None)
    finish = awares.FinishReason.STOP if end else awares.FinishReason.LENGTH
    return awares.Generation(tuple(ids[:end]), tuple(logprobs[:end]), (0,) * len(ids[:end]), finish)


def rollout(policy: TinyPolicy, samples: Samples, reward: awares.Reward) -> Sampled:
    """Run and reward an episode for each sample. A policy may request crops before it answers."""
    spec = awares.EpisodeSpec(LIMITS, sampling=awares.Sampling(temperature=1.0, max_tokens=16))
    sampler, images = BatchSampler(policy), policy.images

    async def play() -> list[awares.Episode]:
        plays = (
            awares.run_episode(one, images[one.image], sampler, policy.chat, spec, one.sample_id)
            for one in samples
        )
        return await asyncio.gather(*plays)

    episodes = asyncio.run(play())
    if errors := [episode.error for episode in episodes if episode.error]:
        raise awares.PolicyError(f"{len(errors)} episodes failed, the first with {errors[0]}")
    # Section 3.4: R = R_ans - C_tool, the answer's quality minus the cost of asking or not asking.
    rewards_B = [value.total for value in reward(episodes, samples)]
    columns = {
        "reward": rewards_B,
        "accuracy": [e.answer == s.answer for e, s in zip(episodes, samples, strict=True)],
        "RTR": [e.rtr_token for e in episodes],
        "calls": [bool(e.crops) for e in episodes],
    }
    return episodes, rewards_B, {key: round(sum(c) / len(c), 3) for key, c in columns.items()}


def descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """Take one optimizer step, with the norm of the gradient clipped to 1."""
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], 1.0)
    optimizer.step()


def warm_up(policy: TinyPolicy, pool: Samples, steps: int) -> None:
    """Fine-tune on demonstrations (section 3.3), which teach how to ask and which crops to name."""
    optimizer = torch.optim.AdamW(policy.model.parameters(), SFT_RATE, weight_decay=0.0)
    for _ in range(steps):
        samples = [_tossed(sample) for sample in random.sample(pool, 2 * QUESTIONS)]
        batch = policy.batch([demonstration(one, policy.chat, (SIDE, SIDE)) for one in samples])
        # A token of a request has the weight w_t, and a token of an answer has the weight 1.
        loss = awares.sft_loss(policy.logprobs(batch, policy.model), batch.weights_BT)
        descend(optimizer, loss)


def _tossed(sample: awares.Sample) -> awares.Sample:
    """Replace the label by a random label. Only GRPO, not SFT, shall teach when to ask."""
    crops = awares.min_cover(sample.evidence, (SIDE, SIDE))
    return replace(sample, label=random.choice(list(awares.Label)), crops=tuple(map(str, crops)))


def grpo(policy: TinyPolicy, pool: Samples, reward: awares.Reward, steps: int) -> Iterator[Means]:
    """Train with GRPO (section 3.4), and yield the figures of each step."""
    reference = copy.deepcopy(policy.model)
    optimizer = torch.optim.AdamW(policy.model.parameters(), GRPO_RATE, weight_decay=0.0)
    for _ in range(steps):
        begun = time.monotonic()
        samples = [sample for sample in random.sample(pool, QUESTIONS) for _ in range(GROUP)]
        episodes, rewards_B, means = rollout(policy, samples, reward)
        advantages_B = group_advantages(rewards_B)
        # Each update uses a part of the episodes. In update 1, all ratios are 1, and no clip acts.
        size = len(episodes) // UPDATES
        for start in range(0, len(episodes), size):
            part = slice(start, start + size)
            loss, stats = step_loss(policy, reference, episodes[part], advantages_B[part])
            descend(optimizer, loss)
        yield means | {"KL": round(stats.kl, 3), "seconds": round(time.monotonic() - begun, 1)}


def group_advantages(rewards_B: list[float]) -> list[float]:
    """Return each episode's advantage in its group. The group's mean reward replaces a critic."""
    groups = [rewards_B[start : start + GROUP] for start in range(0, len(rewards_B), GROUP)]
    return [advantage for rewards_G in groups for advantage in awares.advantages(rewards_G)]


def step_loss(
    policy: TinyPolicy, reference: Any, episodes: list[awares.Episode], advantages_B: list[float]
) -> tuple[Tensor, awares.GrpoStats]:
    """Return the clipped loss, including the KL term, and the figures of the batch."""
    batch = policy.batch(episodes)
    with torch.no_grad():
        reference_BT = policy.logprobs(batch, reference)
    return awares.grpo_loss(
        policy.logprobs(batch, policy.model),
        batch.behaviour_logprobs_BT,
        # The proximal policy here is the behaviour policy, which sampled the tokens.
        batch.behaviour_logprobs_BT,
        reference_BT,
        torch.tensor(advantages_B),
        batch.action_mask_BT,
        awares.GrpoSettings(kl_beta=KL_BETA),
    )


def main() -> None:
    """Train. In 92 s, the test reward rises from 6.4 to 7.8 (seed 0) or 5.5 to 8.1 (seed 1)."""
    parser = argparse.ArgumentParser(description="Train the tiny policy with GRPO.")
    parser.add_argument("--steps", type=int, default=20, help="steps of GRPO")
    parser.add_argument("--seed", type=int, default=0, help="seed of questions and sampling")
    steps, seed = vars(parser.parse_args()).values()
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    random.seed(seed)
    policy, reward = TinyPolicy(), awares.CropReward()
    pool, held_out = policy.questions("train", POOL, seed), policy.questions("test", HELD_OUT, 0)
    warm_up(policy, pool, WARM_UP)
    print("before:", rollout(policy, held_out, reward)[2], flush=True)
    for step, means in enumerate(grpo(policy, pool, reward, steps), start=1):
        print(f"step {step}:", means, flush=True)
    print("after:", rollout(policy, held_out, reward)[2])


if __name__ == "__main__":
    main()
