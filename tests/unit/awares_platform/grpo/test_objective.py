import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from awares.batch import Batch
from awares.episode import Episode
from awares.losses import BatchTotals, Dapo, Grpo, GrpoSettings, grpo_loss
from awares.tower import SharedTower
from awares_platform.config.grpo import GrpoConfig
from awares_platform.grpo.loss_metrics import LossMetrics
from awares_platform.grpo.objective import Objective, spread
from awares_platform.grpo.shard import Minibatch, TrainSequence
from awares_platform.training.failure import Diverged, SkippedSteps

MASK_ST = torch.tensor([[0, 0, 1, 0, 0, 1, 1], [0, 0, 0, 1, 1, 0, 0]], dtype=torch.bool)
ROWS_B = [0, 1, 1]
ADVANTAGES_B = [1.0, -0.5, 0.25]
BEHAVIOUR_BT = torch.tensor(
    [[0, 0, -0.5, 0, 0, -0.1, -1e-9], [0, 0, 0, -0.1, -0.25, 0, 0], [0, 0, 0, -0.3, -0.4, 0, 0]]
)


@pytest.fixture
def trained(
    call_episode: Episode, make_episode: Callable[..., Episode]
) -> tuple[TrainSequence, ...]:
    """Return two sequences. Two episodes with different behaviour logprobs share the second."""
    early, late = make_episode(version=0), make_episode(version=1)
    late = replace(late, turns=(replace(late.turns[0], logprobs=(-0.3, -0.4)),))
    return (TrainSequence((call_episode,), (1.0,)), TrainSequence((early, late), (-0.5, 0.25)))


@pytest.fixture
def batch() -> Batch:
    nothing = torch.zeros(2, 7)
    return Batch(
        input_ids_BT=torch.ones(2, 7, dtype=torch.long),
        attention_mask_BT=nothing,
        mm_token_type_ids_BT=nothing,
        pixel_values_ND=nothing,
        image_grid_thw_I3=nothing,
        image_views_I=nothing,
        action_mask_BT=MASK_ST,
        behaviour_logprobs_BT=nothing,
        weights_BT=nothing,
        versions_BT=nothing,
    )


def test_every_episode_keeps_its_own_behaviour_logprobs_on_the_shared_row(
    trained: tuple[TrainSequence, ...], batch: Batch
) -> None:
    rows_B, behaviour_BT, advantages_B = spread(trained, batch)
    assert rows_B.tolist() == ROWS_B
    assert advantages_B.tolist() == ADVANTAGES_B
    torch.testing.assert_close(behaviour_BT, BEHAVIOUR_BT)


class KnownLogprobs(Objective):
    """An Objective whose forward passes return known logprobs.

    The loss has no KL term by default.
    """

    def __init__(
        self,
        batch: Batch,
        logprobs_ST: Tensor,
        settings: dict[str, Any],
        reference_ST: Tensor | None = None,
    ) -> None:
        config = GrpoConfig.model_validate({"kl_beta": 0.0, **settings})
        tower = SharedTower([], "")
        given: dict[str, Any] = {"tower": tower, "blocked_ids": (), "packed": False}
        super().__init__(None, None, lambda _: batch, config, 2, **given)
        self._known_ST, self._reference_ST = logprobs_ST, reference_ST

    def _logprobs(self, batch: Batch) -> Tensor:
        return self._known_ST

    def _reference(self, batch: Batch) -> Tensor | None:
        return self._reference_ST


@pytest.mark.parametrize(
    ("settings", "kind", "policy_loss"),
    [
        ({}, "policy", Grpo()),
        ({"minibatches": 2}, "step", Grpo()),
        ({"proximal": "behaviour"}, "behaviour", Grpo()),
        ({"loss": "dapo", "minibatches": 2}, "step", Dapo()),
    ],
)
def test_the_loss_has_its_proximal_policy_and_the_totals_of_the_step(
    trained: tuple[TrainSequence, ...],
    batch: Batch,
    settings: dict[str, Any],
    kind: str,
    policy_loss: Any,
) -> None:
    """Check a pass with 3 of the step's 5 episodes, and 7 of its 20 sampled tokens."""
    policy_ST = torch.full((2, 7), -0.2, requires_grad=True)
    step_ST = torch.full((2, 7), -0.6)
    objective = KnownLogprobs(batch, policy_ST, settings)
    minibatch = Minibatch((trained,), total=5, tokens=20)
    proximal = [step_ST] if kind == "step" else None
    (loss,) = objective.losses(minibatch, proximal, LossMetrics())
    anchor_ST = {"policy": policy_ST.detach(), "step": step_ST}.get(kind)
    wanted, _ = grpo_loss(
        policy_ST[ROWS_B],
        BEHAVIOUR_BT,
        BEHAVIOUR_BT if anchor_ST is None else anchor_ST[ROWS_B],
        policy_ST[ROWS_B],
        torch.tensor(ADVANTAGES_B),
        MASK_ST[ROWS_B],
        GrpoSettings(policy_loss, kl_beta=0.0),
        BatchTotals(episodes=5, tokens=20),
    )
    assert loss.item() == pytest.approx(2 * wanted.item()) and loss.item() != 0


@pytest.mark.parametrize("place", ["starting", "proximal"])
def test_a_logprob_that_is_not_finite_spoils_the_gradient_and_is_the_named_cause(
    trained: tuple[TrainSequence, ...], batch: Batch, place: str
) -> None:
    """Without the NaN in the gradient, DeepSpeed would take the step."""
    policy_ST = torch.full((2, 7), -0.2, requires_grad=True)
    known = {name: torch.full((2, 7), -0.6) for name in ("starting", "proximal")}
    known[place][1, 3] = math.nan
    settings = {"kl_beta": 0.05, "minibatches": 2}
    objective = KnownLogprobs(batch, policy_ST, settings, known["starting"])
    metrics, minibatch = LossMetrics(), Minibatch((trained,), total=3, tokens=7)
    (loss,) = objective.losses(minibatch, [known["proximal"]], metrics)
    loss.backward()
    assert policy_ST.grad is not None and torch.equal(policy_ST.grad.isnan(), MASK_ST)
    cause = rf"a token of s0 has a logprob under the {place} policy .* that is not finite"
    with pytest.raises(Diverged, match=rf"step 4, had gradients that are not finite \({cause}\):"):
        SkippedSteps(1, "grpo").count(4, False, metrics.fault)
