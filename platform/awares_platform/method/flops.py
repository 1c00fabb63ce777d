"""Counts the floating-point operations of a model's forward and backward passes.

A token costs these FLOPs in a language model of n parameters (without embedding and output head):

    forward pass             2n    + 2 * layers * hidden width * sequence length for attention
    gradient of activations  2n    + twice the attention of the forward pass
    gradient of weights      2n

Sources: Kaplan et al., arXiv 2001.08361, section 2.1; PaLM, arXiv 2204.02311, appendix B.
"""

from dataclasses import dataclass
from typing import Protocol

from awares_platform.config.policy import PolicyConfig


@dataclass(frozen=True, slots=True)
class Pass:
    """How often one training step runs each kind of computation on a model.

    Example:
        Pass(forward=2, activations=1, weights=0)  # LoRA with a reference
    """

    forward: int
    """Number of forward passes. A reference policy adds one."""
    activations: int
    """How often the gradients of the activations are computed."""
    weights: int
    """How often the gradients of the weights are computed."""

    @property
    def parameter_factor(self) -> int:
        """The number of FLOPs per parameter and token in one training step."""
        return 2 * (self.forward + self.activations + self.weights)

    @property
    def attention_factor(self) -> int:
        """The attention FLOPs of a training step divided by the attention FLOPs of a forward pass.

        The backward pass of attention costs twice as much as the forward pass.
        """
        return self.forward + 2 * self.activations


class ModelSizes(Protocol):
    """The sizes of a model that determine its FLOPs."""

    @property
    def layers(self) -> int:
        """The number of decoder layers."""
        ...

    @property
    def hidden(self) -> int:
        """The hidden width of the language model."""
        ...

    @property
    def layer_parameters(self) -> int:
        """The number of parameters of one decoder layer, without adapters."""
        ...

    @property
    def vision_parameters(self) -> int:
        """The number of parameters of the vision tower."""
        ...

    @property
    def merge(self) -> int:
        """The number n such that n x n patches become one visual token."""
        ...


def passes(policy: PolicyConfig, *, extra: int) -> Pass:
    """Return how often one training step runs each computation on the language model.

    `extra` is the number of forward passes without a backward pass.
    """
    # The weight gradients of LoRA count as 0. At rank 8, they cost 0.3 % of a full 7B model's.
    return Pass(1 + extra, 1, 0 if policy.lora_rank else 1)


def tower_passes(policy: PolicyConfig, work: Pass) -> Pass:
    """Return how often the vision tower runs. A frozen tower has no backward pass."""
    return work if policy.train_vision else Pass(work.forward, 0, 0)


def language_flops(shape: ModelSizes, tokens: float, work: Pass) -> float:
    """Return the FLOPs of the language model for one sequence of `tokens` tokens."""
    parameters = shape.layers * shape.layer_parameters * tokens * work.parameter_factor
    return parameters + 2 * shape.layers * shape.hidden * tokens * tokens * work.attention_factor


def tower_flops(shape: ModelSizes, visual: float, work: Pass) -> float:
    """Return the FLOPs of the vision tower for `visual` visual tokens.

    The tower reads merge**2 patches for each visual token. The count neglects the tower's
    attention, which costs little because most of its blocks attend within small windows.
    """
    return shape.vision_parameters * visual * shape.merge**2 * work.parameter_factor
