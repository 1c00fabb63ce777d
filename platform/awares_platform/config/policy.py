"""[policy]: which model is trained and served, and how much of it learns."""

from typing import Literal, Self

from pydantic import Field, model_validator

from awares_platform.config.base import Section


class PolicyConfig(Section):
    """The policy. Defaults train every weight of AwaRes-Mini's model; the 7B setup takes LoRA on a bfloat16 base."""

    base: str = "mini"
    """`mini` (the shipped tiny Qwen2.5-VL), a local Hugging Face directory, a Hugging Face id, or an s3:// directory."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision of the trained weights. bfloat16 keeps float32 master weights in the optimizer (DeepSpeed)."""
    attn: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
    """Attention implementation of the trainer. flash_attention_2 needs the package flash-attn, which the locked sets leave out."""
    lora_rank: int = Field(default=0, ge=0)
    """Rank of the LoRA adapters; 0 trains the weights themselves (paper: 8)."""
    lora_alpha: float = Field(default=16.0, gt=0)
    """LoRA scale: the adapter's product is multiplied by lora_alpha / lora_rank. The paper does not state it."""
    lora_targets: tuple[str, ...] = Field(
        default=("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
        min_length=1,
    )
    """Linear layers of the language model that receive an adapter, by their last name."""
    train_vision: bool = False
    """Train the vision tower, too. Frozen it is faster and forgets nothing: when to crop is for the language model to learn."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""

    @model_validator(mode="after")
    def adapters_leave_the_vision_tower_alone(self) -> Self:
        if self.lora_rank and self.train_vision:
            raise ValueError(
                "policy.train_vision needs policy.lora_rank = 0: adapters are for the language model only"
            )
        return self
