from collections.abc import Callable
from dataclasses import replace

import torch

from awares.batch import Batch
from awares.episode import Episode
from awares_platform.grpo.objective import spread
from awares_platform.grpo.shard import TrainSequence


def test_every_episode_keeps_its_own_behaviour_logprobs_on_the_shared_row(
    call_episode: Episode, make_episode: Callable[..., Episode]
) -> None:
    early, late = make_episode(version=0), make_episode(version=1)
    late = replace(late, turns=(replace(late.turns[0], logprobs=(-0.3, -0.4)),))
    trained = (TrainSequence((call_episode,), (1.0,)), TrainSequence((early, late), (-0.5, 0.25)))
    mask_ST = torch.tensor([[0, 0, 1, 0, 0, 1, 1], [0, 0, 0, 1, 1, 0, 0]], dtype=torch.bool)
    nothing = torch.zeros(2, 7)
    batch = Batch(
        input_ids_BT=torch.ones(2, 7, dtype=torch.long),
        attention_mask_BT=nothing,
        mm_token_type_ids_BT=nothing,
        pixel_values_ND=nothing,
        image_grid_thw_I3=nothing,
        image_views_I=nothing,
        action_mask_BT=mask_ST,
        behaviour_logprobs_BT=nothing,
        weights_BT=nothing,
        versions_BT=nothing,
    )
    rows_B, behaviour_BT, advantages_B = spread(trained, batch)
    assert rows_B.tolist() == [0, 1, 1]
    assert advantages_B.tolist() == [1.0, -0.5, 0.25]
    expected = torch.tensor(
        [[0, 0, -0.5, 0, 0, -0.1, -1e-9], [0, 0, 0, -0.1, -0.25, 0, 0], [0, 0, 0, -0.3, -0.4, 0, 0]]
    )
    torch.testing.assert_close(behaviour_BT, expected)
