"""[policy]: the model to train and serve, and which of its weights train."""

from typing import Literal, Self

from pydantic import Field, model_validator

from awares_platform.config.base import Section


class PolicyConfig(Section):
    """The policy.

    By default every weight of AwaRes-Mini's language model trains. The 7B setup trains LoRA
    adapters on a bfloat16 base.
    """

    base: str = "mini"
    """`mini` (the shipped tiny Qwen2.5-VL), a local Hugging Face directory, a Hugging Face id, or
    an s3:// directory."""
    family: str = "awares.families.qwen2_5_vl:Qwen25VL"
    """The model family of `base`, as module:attribute (awares.family.ModelFamily)."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision of the trained weights. With bfloat16, DeepSpeed keeps float32 master weights."""
    attn: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
    """Attention implementation of the trainer. flash_attention_2 needs the package flash-attn,
    which the locked sets leave out."""
    lora_rank: int = Field(default=0, ge=0)
    """Rank of the LoRA adapters; 0 trains the weights themselves (paper: 8)."""
    lora_alpha: float = Field(default=16.0, gt=0)
    """LoRA scale: the adapter's product is multiplied by lora_alpha / lora_rank. The paper does not
    state it."""
    lora_targets: tuple[str, ...] = ()
    """Linear layers of the language model that receive an adapter, by their last name. Empty takes
    all that the family lists."""
    train_vision: bool = False
    """Train the vision tower, too. A frozen tower trains faster and forgets nothing, and the choice
    of crops is learnt by the language model."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""

    @model_validator(mode="after")
    def adapters_leave_the_vision_tower_alone(self) -> Self:
        if self.lora_rank and self.train_vision:
            raise ValueError(
                "policy.train_vision needs policy.lora_rank = 0: "
                "adapters are for the language model only"
            )
        return self
