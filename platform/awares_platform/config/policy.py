"""The section [policy]: the model to train and serve, and which of its weights to train."""

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from awares_platform.config.base import Section
from awares_platform.config.store import prefix_address


class PolicyConfig(Section):
    """Settings of the policy.

    The defaults train every weight of AwaRes-Mini's language model. The 7B setup trains LoRA
    adapters on a bfloat16 base.
    """

    base: str = "mini"
    """Base model: `mini` (the bundled tiny Qwen2.5-VL), a local Hugging Face directory, a Hugging
    Face id, or an s3:// directory."""
    family: str = "awares.families.qwen2_5_vl:Qwen25VL"
    """The model family of `base`, as module:attribute (awares.family.ModelFamily)."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision of the trained weights. With bfloat16, DeepSpeed keeps float32 master weights."""
    attn: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
    """Attention implementation of the trainer. flash_attention_2 needs the package flash-attn,
    which the lock file does not include."""
    lora_rank: int = Field(default=0, ge=0)
    """Rank of the LoRA adapters. 0 trains the weights themselves. The paper uses 8."""
    lora_alpha: float = Field(default=16.0, gt=0)
    """LoRA alpha: the adapter's output is multiplied by lora_alpha / lora_rank. The paper does not
    state a value."""
    lora_targets: tuple[str, ...] = ()
    """Linear layers of the language model that get an adapter, such as "q_proj". An empty list
    means all layers that the model family lists."""
    train_vision: bool = False
    """Also train the vision tower. Training is faster with a frozen tower, and the language model
    can learn the choice of crops without a trained tower."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass. This saves memory and takes about a third more
    time."""

    @property
    def packed(self) -> bool:
        """Whether a forward pass packs its sequences without padding.

        Packing needs flash attention, because only flash attention skips the pairs of tokens from
        different sequences.
        """
        return self.attn == "flash_attention_2"

    @field_validator("base")
    @classmethod
    def an_s3_base_names_a_prefix(cls, base: str) -> str:
        return prefix_address(base) if base.startswith("s3://") else base

    @model_validator(mode="after")
    def adapters_leave_the_vision_tower_alone(self) -> Self:
        if self.lora_rank and self.train_vision:
            raise ValueError(
                "policy.train_vision needs policy.lora_rank = 0: "
                "adapters are for the language model only"
            )
        return self
