"""Loads the model and the processor of a policy, and computes digests of its input processing.

A policy is a Hugging Face directory: config.json, safetensors, tokenizer and processor files.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blake3 import blake3

from awares.errors import PolicyError
from awares.family import ModelFamily
from awares_platform.config.policy import PolicyConfig
from awares_platform.method.family import model_family
from awares_platform.training import fit, inputs, lora

if TYPE_CHECKING:
    from torch import nn

_TEXT_FILES = (
    "chat_template.jinja",
    "chat_template.json",
    "tokenizer.json",
    "tokenizer_config.json",
)


def load_policy(
    path: Path, policy: PolicyConfig, seed: int, *, partitioned: bool = False, gpu: bool = False
) -> "nn.Module":
    """Load the model of the policy in the directory `path`, ready to train.

    - `seed` initialises LoRA adapters.
    - If `partitioned` is true, all ranks call this function, and each gets its slice for ZeRO-3.

    Raises PolicyError if the files cannot be loaded or do not fit each other.
    """
    import torch

    family = model_family(policy)
    fit.check_directory(path, family)
    options = {
        "dtype": getattr(torch, policy.dtype),
        "attn_implementation": policy.attn,
        "local_files_only": True,
    }
    try:
        if partitioned:
            from awares_platform.training.partition import load_partitioned

            model, report = load_partitioned(path, family, options, gpu)
        else:
            model, report = family.load_model(path, **options)
    except (OSError, RuntimeError, ValueError, ImportError) as error:
        raise PolicyError(f"{path} does not load as {family.name}: {error}") from error
    fit.check_report(path, report)
    model.config.use_cache = False
    if not policy.train_vision:
        model.get_submodule(family.tower).requires_grad_(False)
    if policy.lora_rank:
        lora.attach(model, family, policy.lora_rank, policy.lora_alpha, policy.lora_targets, seed)
    if policy.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        # The call above makes the inputs of layers require gradients. Non-reentrant checkpointing
        # does not need these gradients, and a frozen vision tower would compute them in vain.
        model.disable_input_require_grads()
    return _in_training_mode(model)


def _in_training_mode(model: Any) -> "nn.Module":
    """Set training mode, and switch all dropout off.

    `from_pretrained` sets evaluation mode, in which transformers ignores gradient checkpointing.
    Dropout would make the logprobs of the learner differ from the logprobs of the engine.
    """
    from torch import nn

    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        elif hasattr(module, "attention_dropout"):
            module.attention_dropout = 0.0
    return model.train()


def load_processor(path: Path, family: ModelFamily, min_pixels: int, max_pixels: int) -> Any:
    """Load the policy's processor, which consists of a tokenizer and an image processor.

    `min_pixels` and `max_pixels` bound the area of an image. Raises PolicyError if the processor
    cannot be loaded.
    """
    from transformers import AutoProcessor

    try:
        processor = AutoProcessor.from_pretrained(path, local_files_only=True)
    except (OSError, ValueError, ImportError) as error:
        raise PolicyError(f"{path} has no usable processor: {error}") from error
    options = family.processor_options(family.limits(min_pixels, max_pixels))
    for name, value in options.items():
        setattr(processor.image_processor, name, value)
    return processor


def interface(path: Path) -> tuple[str, str]:
    """Return two blake3 hex digests, one of the image processor's files and one of the text files.

    Policies with equal digests turn text into the same ids. The digests leave out the bounds on an
    image's area.
    """
    processor = [
        (name, _without_bounds(path / name))
        for name in inputs.PROCESSOR_FILES
        if (path / name).is_file()
    ]
    texts = [(name, (path / name).read_bytes()) for name in _TEXT_FILES if (path / name).is_file()]
    return _joint(processor), _joint(texts)


def _without_bounds(file: Path) -> bytes:
    """Return the content of a processor's file without the bounds on an image's area.

    These bounds have no effect, because the trainer and the engine take them from [method]. They
    may differ between an exported policy and its base policy.
    """
    content = json.loads(file.read_text("utf-8"))
    for key in inputs.BOUNDS:
        (inputs.image_processor(file, content) or {}).pop(key, None)
    return json.dumps(content, sort_keys=True).encode()


def _joint(held: list[tuple[str, bytes]]) -> str:
    parts = (name.encode() + len(data).to_bytes(8, "little") + data for name, data in held)
    return blake3(b"".join(parts)).hexdigest()
