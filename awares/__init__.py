"""The AwaRes method: a policy sees a low-resolution view, asks for crops if needed, and answers.

Names that need torch are loaded on first use, so `import awares` does not load torch. Import the
function `demonstration` from its module, `awares.demonstration`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from awares.advantage import advantages, batch_divisor
from awares.budget import Budget
from awares.carried import Carried
from awares.chat import ChatFormat, Said
from awares.crops import Box, CropId, CropMapping, area_fraction, crop_box, min_cover, target_crops
from awares.demonstration import Demonstration
from awares.environment import Answer, Environment, Malformed, Request
from awares.episode import Episode, StopReason, Turn, run_episode
from awares.episode_spec import EpisodeSpec
from awares.errors import (
    AwaresError,
    ConfigError,
    DataError,
    Fenced,
    MissingData,
    MissingPolicy,
    PolicyError,
    TooLong,
)
from awares.evaluation.benchmarks import Benchmark
from awares.evaluation.bootstrap import difference, interval
from awares.evaluation.decisions import Decisions, decisions, region_iou
from awares.evaluation.scorers import Scorer, scorer
from awares.evaluation.summary import Summary, summarise, table
from awares.family import ChatTokens, ModelFamily
from awares.gallery import Gallery
from awares.generate import FinishReason, Generate, GenerateRequest, Generation, Sampling
from awares.grounding import Annotations, Grounding
from awares.images import DecodeLimits, decode, low_view, render
from awares.labels import Case, Judge, Judgement, MatchJudge, Verdict, label
from awares.one_turn import OneTurn
from awares.packed import Packable, PackedTokens, PackedTurns
from awares.passes import PassBudget
from awares.protocol import SYSTEM_PROMPT, format_request, parse_turn
from awares.reward import AnswerReward, CropReward, Reward, RewardValue, answer_reward
from awares.sample import Label, Sample
from awares.seeds import derive, shuffled
from awares.similarity import SentenceSimilarity
from awares.ten_crops import TenCrops
from awares.tokens import VisionLimits, rtr_pixel, rtr_token, visual_tokens
from awares.view import ImageView, View, crop_view, full_view, view_size
from awares.view_rule import ViewRule, Views
from awares.whole_image import WholeImage

if TYPE_CHECKING:
    from awares.batch import Batch, collate, sequence_length
    from awares.logprobs import policy_logprobs, token_logprobs
    from awares.losses import (
        BatchTotals,
        Cispo,
        ClipHigher,
        Dapo,
        DrGrpo,
        Gain,
        Grpo,
        GrpoSettings,
        GrpoStats,
        Gspo,
        PolicyLoss,
        SampledTokens,
        grpo_loss,
        sft_loss,
    )
    from awares.tower import SharedTower

_LAZY = {
    "Batch": "awares.batch",
    "collate": "awares.batch",
    "policy_logprobs": "awares.logprobs",
    "sequence_length": "awares.batch",
    "token_logprobs": "awares.logprobs",
    "BatchTotals": "awares.losses",
    "Cispo": "awares.losses",
    "ClipHigher": "awares.losses",
    "Dapo": "awares.losses",
    "DrGrpo": "awares.losses",
    "Gain": "awares.losses",
    "Grpo": "awares.losses",
    "Gspo": "awares.losses",
    "PolicyLoss": "awares.losses",
    "SampledTokens": "awares.losses",
    "GrpoSettings": "awares.losses",
    "GrpoStats": "awares.losses",
    "grpo_loss": "awares.losses",
    "sft_loss": "awares.losses",
    "SharedTower": "awares.tower",
}

__all__ = [
    "Answer",
    "Annotations",
    "AnswerReward",
    "AwaresError",
    "Batch",
    "BatchTotals",
    "Benchmark",
    "Box",
    "Budget",
    "Carried",
    "Case",
    "ChatFormat",
    "ChatTokens",
    "Cispo",
    "ClipHigher",
    "ConfigError",
    "CropId",
    "CropMapping",
    "CropReward",
    "Dapo",
    "DataError",
    "Decisions",
    "DecodeLimits",
    "Demonstration",
    "DrGrpo",
    "Environment",
    "Episode",
    "EpisodeSpec",
    "Fenced",
    "FinishReason",
    "Gain",
    "Gallery",
    "Generate",
    "GenerateRequest",
    "Generation",
    "Grounding",
    "Grpo",
    "GrpoSettings",
    "GrpoStats",
    "Gspo",
    "ImageView",
    "Judge",
    "Judgement",
    "Label",
    "Malformed",
    "MatchJudge",
    "MissingData",
    "MissingPolicy",
    "OneTurn",
    "ModelFamily",
    "Packable",
    "PackedTokens",
    "PackedTurns",
    "PassBudget",
    "PolicyError",
    "PolicyLoss",
    "Request",
    "Reward",
    "RewardValue",
    "SYSTEM_PROMPT",
    "Said",
    "Sample",
    "SampledTokens",
    "Sampling",
    "SharedTower",
    "Scorer",
    "SentenceSimilarity",
    "StopReason",
    "Summary",
    "TenCrops",
    "TooLong",
    "Turn",
    "Verdict",
    "View",
    "ViewRule",
    "Views",
    "VisionLimits",
    "WholeImage",
    "advantages",
    "answer_reward",
    "area_fraction",
    "batch_divisor",
    "collate",
    "crop_box",
    "crop_view",
    "decisions",
    "decode",
    "derive",
    "difference",
    "format_request",
    "full_view",
    "grpo_loss",
    "interval",
    "label",
    "low_view",
    "min_cover",
    "parse_turn",
    "policy_logprobs",
    "region_iou",
    "render",
    "rtr_pixel",
    "rtr_token",
    "run_episode",
    "scorer",
    "sequence_length",
    "sft_loss",
    "shuffled",
    "summarise",
    "table",
    "target_crops",
    "token_logprobs",
    "view_size",
    "visual_tokens",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'awares' has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)
