"""[policy]: which model is trained and served, and how much of it learns."""

from typing import Literal

from pydantic import Field

from awares_platform.config.base import Section


class PolicyConfig(Section):
    """The policy. Defaults train every weight of AwaRes-Mini's model; the 7B setup takes LoRA on a bfloat16 base."""

    base: str = "mini"
    """`mini` (the shipped tiny Qwen2.5-VL), a local Hugging Face directory, a Hugging Face id, or an s3:// directory."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision of the trained weights. bfloat16 keeps float32 master weights in the optimizer (DeepSpeed)."""
    attn: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
    """Attention implementation of the trainer."""
    lora_rank: int = Field(default=0, ge=0)
    """Rank of the LoRA adapters; 0 trains all weights, the vision tower included (paper: 8)."""
    lora_alpha: float = Field(default=16.0, gt=0)
    """LoRA scale: the adapter's product is multiplied by lora_alpha / lora_rank. The paper does not state it."""
    lora_targets: tuple[str, ...] = Field(
        default=("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"), min_length=1
    )
    """Linear layers of the language model that receive an adapter, by their last name. The vision tower stays frozen."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
