"""The properties in which the dense Qwen3-VL models differ from Qwen2.5-VL."""

from awares.families.qwen2_5_vl import Qwen25VL
from awares.tokens import VisionLimits


class Qwen3VL(Qwen25VL):
    """Qwen3-VL is like Qwen2.5-VL, but a visual token covers 32 x 32 pixels.

    Example:
        family = Qwen3VL()
        limits = family.limits(min_pixels=1024, max_pixels=1_605_632)
    """

    name = "Qwen3-VL"
    model_type = "qwen3_vl"
    architecture = "Qwen3VLForConditionalGeneration"
    vllm_module = "vllm.model_executor.models.qwen3_vl"

    def limits(self, min_pixels: int, max_pixels: int) -> VisionLimits:
        """Return the processor's limits: 16 x 16 pixels per patch, 2 x 2 patches per token."""
        return VisionLimits(patch=16, merge=2, min_pixels=min_pixels, max_pixels=max_pixels)
