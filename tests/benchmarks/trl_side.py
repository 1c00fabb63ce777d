"""Trains a policy with TRL's GRPOTrainer, for the comparison in tests/benchmarks/trl.py.

    python -P tests/benchmarks/trl_side.py WORK

WORK is the directory that trl_work.py writes. The script replaces TRL's parser of requests and the
chat template, to fit this project's SFT policy.
"""

import io
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from PIL import Image
from transformers import (
    AutoProcessor,
    Qwen2_5_VLForConditionalGeneration,
    TrainerCallback,
    TrainerControl,
    TrainerState,
)
from trl import GRPOConfig, GRPOTrainer
from trl.trainer import grpo_trainer

from awares.chat import ChatFormat
from awares.environment import Malformed, Request
from awares.episode import Episode, StopReason, Turn
from awares.images import render
from awares.reward import CropReward
from awares.sample import Label, Sample
from awares.ten_crops import TenCrops
from awares.view_rule import ViewRule

TEMPLATE = """\
{% for message in messages %}<|im_start|>\
{{ 'user' if message['role'] == 'tool' else message['role'] }}
{% if message['content'] is string %}{{ message['content'] }}{% else %}\
{% for part in message['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }}{% else %}\
<|vision_start|><|image_pad|><|vision_end|>{% endif %}{% endfor %}{% endif %}\
{% if message['tool_calls'] %}{{ message['tool_calls'] | tojson }}{% endif %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
LONGEST = 800
"""The largest number of tokens after the prompt: both turns, and the crops between them."""


class Scenes:
    """The samples of work.json, their decoded images by name, and the crops that TRL may request.

    `place` is the directory that trl_work.py wrote, and `work` is the content of its work.json.
    """

    def __init__(self, place: Path, work: dict[str, Any]) -> None:
        self.crops, self.low_ratio = TenCrops(rule=ViewRule(**work["rule"])), work["low_ratio"]
        self.samples = [
            Sample(
                row["id"], row["image"], row["question"], row["answer"], label=Label(row["label"])
            )
            for row in work["samples"]
        ]
        self.images: dict[str, Image.Image] = {}
        for name in {sample.image for sample in self.samples}:
            data = (place / "images" / name).read_bytes()
            self.images[name] = Image.open(io.BytesIO(data)).convert("RGB")


def environment(scenes: Scenes) -> type:
    """Return an environment class for TRL. An instance plays one episode about a scene."""

    offered = scenes.crops

    class Crops:
        def reset(self, sample: int, **_: Any) -> list[dict[str, Any]]:
            self._sample = scenes.samples[sample]
            self._image = scenes.images[self._sample.image]
            self._asked: Request | None = None
            low = render(self._image, offered.first_view(self._image.size), scenes.low_ratio)
            return [
                {"type": "image", "image": low},
                {"type": "text", "text": self._sample.question},
            ]

        def get_crops(self, regions: list[str]) -> list[dict[str, Any]]:
            """Return regions of the image at full resolution.

            Args:
                regions: The names of the regions.
            """
            self._asked = Request(tuple(regions))
            views = offered.views(self._asked, self._image.size)
            return [{"type": "image", "image": render(self._image, view)} for view in views]

        def _episode(self, text: str) -> Episode:
            """Return an episode whose last turn is `text`. Only the reward reads this episode."""
            parsed, asked, size = offered.parse(text), self._asked, self._image.size
            stop = StopReason.ANSWER
            if isinstance(parsed, Malformed):
                stop = StopReason.MALFORMED
            elif isinstance(parsed, Request):
                stop = StopReason.TURN_LIMIT if asked else StopReason.MALFORMED
            crops, area = (asked.regions, offered.cost(asked, size)) if asked else ((), 0.0)
            turn = Turn(
                context_ids=(),
                views=(),
                sampled_ids=(),
                logprobs=(),
                versions=(),
                text=text,
                crops=crops,
                stop=stop,
                area=area,
            )
            answer = text if stop is StopReason.ANSWER else None
            name, image = self._sample.sample_id, self._sample.image
            return Episode(
                sample_id=name,
                image=image,
                image_size=size,
                turns=(turn,),
                answer=answer,
                stop=stop,
                visual_tokens=0,
                rtr_token=0.0,
                rtr_pixel=0.0,
            )

    return Crops


def parser(offered: TenCrops, end_id: int) -> Any:
    """Return a function that replaces TRL's `parse_response`."""

    def parse(
        tokenizer: Any, ids: list[int], prefix: Any = None, tools: Any = None
    ) -> dict[str, Any]:
        text = tokenizer.decode(ids, skip_special_tokens=True).strip()
        message: dict[str, Any] = {"role": "assistant", "content": text}
        parsed = offered.parse(text)
        # Ignore a request that is cut off by the token limit.
        if isinstance(parsed, Request) and ids[-1] == end_id:
            call = {"name": "get_crops", "arguments": {"regions": list(parsed.regions)}}
            message["tool_calls"] = [{"type": "function", "function": call}]
        return message

    return parse


def rewards(reward: CropReward) -> Any:
    """Return a reward function for GRPOTrainer."""

    def crop_reward(environments: list[Any], completions: list[Any], **_: Any) -> list[float]:
        pairs = zip(environments, completions, strict=True)
        episodes = [scene._episode(messages[-1]["content"]) for scene, messages in pairs]
        values = reward(episodes, [scene._sample for scene in environments])
        return [value.total for value in values]

    return crop_reward


class Steps(TrainerCallback):
    """Appends a line of JSON with the Unix time and the metrics of each step to a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def on_log(
        self,
        args: Any,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        row = {"step": state.global_step, "time": time.time(), **(logs or {})}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def settings(work: dict[str, Any], blocked: tuple[int, ...], output: Path) -> GRPOConfig:
    """Return TRL's settings. All settings that are not named here keep TRL's defaults."""
    episodes = work["groups_per_step"] * work["group_size"]
    return GRPOConfig(
        output_dir=str(output),
        max_steps=work["steps"],
        per_device_train_batch_size=work["micro_batch"],
        gradient_accumulation_steps=episodes // work["micro_batch"],
        num_generations=work["group_size"],
        max_completion_length=LONGEST,
        max_tool_calling_iterations=1,
        generation_kwargs={
            "max_new_tokens": work["max_tokens"],
            "suppress_tokens": list(blocked),
        },
        temperature=work["temperature"],
        learning_rate=work["learning_rate"],
        max_grad_norm=work["max_grad_norm"],
        beta=work["kl_beta"],
        epsilon=work["clip"],
        loss_type="grpo",
        model_init_kwargs={"dtype": work["dtype"]},
        bf16=work["dtype"] == "bfloat16",
        gradient_checkpointing=False,
        shuffle_dataset=False,
        use_cpu=True,
        seed=work["seed"],
        save_strategy="no",
        logging_steps=1,
        report_to="none",
        disable_tqdm=True,
    )


def main() -> None:
    place = Path(sys.argv[1])
    work = json.loads((place / "work.json").read_text("utf-8"))
    torch.set_num_threads(work["trl_threads"])
    processor = AutoProcessor.from_pretrained(work["policy"])
    processor.chat_template = TEMPLATE
    processor.tokenizer.chat_template = TEMPLATE
    # TRL requires a description of the replies' grammar, which this script's parser ignores.
    processor.tokenizer.response_template = {}
    chat = ChatFormat(processor.tokenizer)
    scenes = Scenes(place, work)
    grpo_trainer.parse_response = parser(scenes.crops, chat.end_id)
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(work["policy"], dtype=work["dtype"])
    model.model.visual.requires_grad_(False)
    prompt = [{"role": "user", "content": []}]
    trainer = GRPOTrainer(
        model=model,
        processing_class=processor,
        reward_funcs=rewards(CropReward(**work["reward"])),
        args=settings(work, chat.blocked_ids, place / "trl"),
        train_dataset=Dataset.from_list(
            [{"prompt": prompt, "sample": number} for number in range(len(scenes.samples))]
        ),
        environment_factory=environment(scenes),
        callbacks=[Steps(place / "trl.jsonl")],
    )
    trainer.train()


if __name__ == "__main__":
    main()
