"""Writes losses, gradients and advantages that TRL computes from fixed tensors, as JSON.

    PYTHONPATH=. ENVIRONMENT/bin/python -P tests/benchmarks/trl_losses.py > VALUES

- ENVIRONMENT: a Python environment with the packages of trl.txt, such as .tools/trl
- VALUES: tests/unit/awares_platform/grpo/trl_losses.json, which a unit test reads

Run the script again after a change of TRL's version or of CASES.
"""

import json
import sys
import tempfile
from importlib.metadata import version
from typing import Any

import torch
from datasets import Dataset
from tokenizers import Tokenizer, models
from torch import Tensor
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM
from trl import GRPOConfig, GRPOTrainer

GROUP, LENGTH, LONGEST = 4, 6, 16
MASKS = ["111111", "110011", "1", "1110", "101", "11111", "100001", "11"]
"""For each episode, 1 for a sampled token and 0 for a token of context."""

CASES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    ({"kl_beta": 0.5, "clip": 0.1}, {"beta": 0.5, "epsilon": 0.1}),
    (
        {"loss": "clip_higher", "minibatches": 2},
        {"epsilon_high": 0.28},
    ),
    (
        {"loss": "dr_grpo", "advantage_scale": "none", "loss_length": LONGEST, "kl_beta": 0.05},
        {"loss_type": "dr_grpo", "scale_rewards": "none", "beta": 0.05},
    ),
    ({"loss": "dapo"}, {"loss_type": "dapo", "epsilon_high": 0.28}),
    (
        {"loss": "dapo", "clip_high": 0.2, "kl_beta": 0.05, "importance": "sequence_mask"},
        {"loss_type": "dapo", "beta": 0.05, "vllm_importance_sampling_mode": "sequence_mask"},
    ),
    (
        {"loss": "gspo", "minibatches": 2},
        {"importance_sampling_level": "sequence", "epsilon": 3e-4, "epsilon_high": 4e-4},
    ),
    (
        {
            "loss": "gspo",
            "minibatches": 2,
            "clip": 0.1,
            "clip_high": 0.2,
            "kl_beta": 0.05,
            "importance": "sequence_truncate",
        },
        {
            "importance_sampling_level": "sequence",
            "epsilon": 0.1,
            "epsilon_high": 0.2,
            "beta": 0.05,
            "vllm_importance_sampling_mode": "sequence_truncate",
        },
    ),
    ({"loss": "cispo"}, {"loss_type": "cispo", "epsilon_high": 5.0}),
    (
        {"loss": "cispo", "ratio_cap": 1.1, "kl_beta": 0.05, "advantage_scale": "batch"},
        {"loss_type": "cispo", "epsilon_high": 1.1, "beta": 0.05, "scale_rewards": "batch"},
    ),
    (
        {"importance": "sequence_truncate"},
        {"vllm_importance_sampling_mode": "sequence_truncate"},
    ),
    ({"importance": "sequence_mask"}, {"vllm_importance_sampling_mode": "sequence_mask"}),
    ({"importance_cap": 1.2}, {"vllm_importance_sampling_clip_max": 1.2}),
    ({"advantage_scale": "batch"}, {"scale_rewards": "batch"}),
    ({"advantage_scale": "none"}, {"scale_rewards": "none"}),
]
"""Pairs of settings with the same meaning: keys of [grpo], and arguments of TRL's GRPOConfig.

OURS and THEIRS hold the values of settings that a pair does not name. TRL's side needs no
counterpart of `minibatches`, because each case is one update with a given proximal policy.
"""
OURS = {"kl_beta": 0.0}
THEIRS = {
    "beta": 0.0,
    "epsilon": 0.2,
    "loss_type": "grpo",
    "scale_rewards": "group",
    "vllm_importance_sampling_mode": "token_truncate",
    "vllm_importance_sampling_clip_max": 2.0,
    "max_completion_length": LONGEST,
    # By default, TRL multiplies the KL term by the importance ratio. This project does not.
    "use_bias_correction_kl": False,
}


def tensors() -> dict[str, Tensor]:
    """Return the logprobs of each policy, the mask and the rewards, for two groups of episodes."""
    made, shape = torch.Generator().manual_seed(0), (len(MASKS), LENGTH)

    def noise(size: float) -> Tensor:
        return size * torch.randn(shape, generator=made)

    proximal = -2 - noise(0.5).abs()
    return {
        "policy": proximal + noise(0.25),
        "behaviour": proximal + noise(0.5),
        "proximal": proximal,
        "reference": proximal + noise(0.5),
        "mask": torch.tensor([[int(bit) for bit in mask.ljust(LENGTH, "0")] for mask in MASKS]),
        "rewards": torch.tensor([1.0, 3.0, 3.0, 0.5, 9.75, 9.5, 10.0, -2.0]),
    }


class FixedTrainer(GRPOTrainer):
    """A GRPOTrainer that takes its tokens, logprobs and rewards from `tensors`."""

    def use(self, given: dict[str, Tensor], beta: float) -> None:
        """Set the data, and the attributes that TRL sets for vLLM and for a reference policy."""
        self.given, self.beta, self.use_vllm = given, beta, True
        self.ref_model = torch.nn.Identity()
        self.current_gradient_accumulation_steps = 1
        self.policy = given["policy"].clone().requires_grad_()

    def _generate(self, prompts: list[Any]) -> tuple[Any, ...]:
        rows = [[int(bit) for bit in mask] for mask in MASKS]
        ids = [[1] * len(row) for row in rows]
        behaviour = self.given["behaviour"].tolist()
        logprobs = [values[: len(row)] for values, row in zip(behaviour, rows, strict=True)]
        return [[1]] * len(rows), ids, rows, ["a"] * len(rows), logprobs, {}, None, None

    def _calculate_rewards(self, *_: Any) -> Tensor:
        return self.given["rewards"].unsqueeze(1)

    def _get_per_token_logps_and_entropies(
        self, model: Any, *_: Any, compute_entropy: bool = False, **__: Any
    ) -> tuple[Tensor, Tensor, None]:
        kind = "reference" if model is self.ref_model else "proximal"
        logprobs = self.policy if compute_entropy else self.given[kind]
        return logprobs, torch.zeros_like(self.given["policy"]), None


def trainer(arguments: dict[str, Any], directory: str) -> FixedTrainer:
    """Return a trainer with a tiny language model. The script never runs this model."""
    words = Tokenizer(models.WordLevel({"a": 0, "b": 1, "c": 2}, unk_token="a"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="c", eos_token="b")
    size = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "vocab_size": 3}
    config = Qwen2Config(**size, num_attention_heads=1, num_key_value_heads=1)
    settings = GRPOConfig(
        output_dir=directory,
        per_device_train_batch_size=len(MASKS),
        num_generations=GROUP,
        use_cpu=True,
        bf16=False,
        report_to="none",
        # With a nonzero beta, TRL would load a reference model. `use` sets the real beta later.
        **{**arguments, "beta": 0.0},
    )
    return FixedTrainer(
        model=Qwen2ForCausalLM(config),
        processing_class=tokenizer,
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        args=settings,
        train_dataset=Dataset.from_list([{"prompt": "a"}]),
    )


def measured(theirs: dict[str, Any], given: dict[str, Tensor]) -> dict[str, Any]:
    """Return TRL's advantages, loss and gradient for the settings `theirs`."""
    arguments = {**THEIRS, **theirs}
    with tempfile.TemporaryDirectory() as directory:
        taught = trainer(arguments, directory)
        taught.use(given, arguments["beta"])
        taught.model.train()
        batch = taught._generate_and_score_completions([{"prompt": "a"}] * len(MASKS))
        loss = taught._compute_loss(taught.model, batch)
    loss.backward()
    assert taught.policy.grad is not None
    return {
        "advantages": batch["advantages"].tolist(),
        "loss": loss.item(),
        "gradient": taught.policy.grad.tolist(),
    }


def main() -> None:
    given = tensors()
    cases = [
        {"ours": {**OURS, **ours}, "theirs": {**THEIRS, **theirs}, **measured(theirs, given)}
        for ours, theirs in CASES
    ]
    values = {name: value.tolist() for name, value in given.items()}
    json.dump({"trl": version("trl"), "tensors": values, "cases": cases}, sys.stdout)
    print()


if __name__ == "__main__":
    main()
