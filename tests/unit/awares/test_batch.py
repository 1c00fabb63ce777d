"""Tests that batches and logprobs agree with recorded episodes and with transformers."""

import dataclasses
import math

import pytest
import torch
from PIL import Image

from awares import pixels
from awares.batch import Batch, collate, sequence_length
from awares.crops import CropId
from awares.demonstration import Demonstration, demonstration
from awares.episode import Episode, StopReason
from awares.errors import PolicyError
from awares.images import render
from awares.logprobs import policy_logprobs, token_logprobs
from awares.sample import Label, Sample
from awares.view import View

BLUE = Image.effect_mandelbrot((140, 112), (-2, -1.5, 1, 1.5), 80).convert("RGB")
STRIP = Image.linear_gradient("L").convert("RGB").resize((900, 3))
IMAGES = {"blue": BLUE, "strip": STRIP}


def direct(chat) -> Demonstration:
    return demonstration(Sample("s0", "blue", "color?", "red", label=Label.LR), chat, BLUE.size)


def called(chat, image: str = "blue") -> Demonstration:
    sample = Sample(
        "s1",
        image,
        "digit on the red circle?",
        "7",
        label=Label.HR,
        crops=(CropId.TOP_LEFT, CropId.RIGHT),
    )
    return demonstration(sample, chat, IMAGES[image].size)


def as_episode(item: Demonstration) -> Episode:
    """Return an episode with the turns of `item`.

    The logprob and the weight version of a token depend on its turn and on its place in the turn.
    """
    turns = tuple(
        dataclasses.replace(
            turn,
            logprobs=tuple(
                -(number + 1) / 8 - index / 64 for index in range(len(turn.sampled_ids))
            ),
            versions=tuple(number + index % 2 for index in range(len(turn.sampled_ids))),
        )
        for number, turn in enumerate(item.turns)
    )
    return Episode(
        sample_id=item.sample_id,
        image=item.image,
        image_size=item.image_size,
        turns=turns,
        answer="7",
        stop=StopReason.ANSWER,
        visual_tokens=0,
        rtr_token=0.0,
        rtr_pixel=0.0,
    )


def test_ids_expand_to_exactly_one_image_token_per_feature(chat, processor, limits):
    batch = collate([direct(chat), called(chat)], IMAGES.__getitem__, processor, limits)
    # A token covers 28 x 28 pixels. The low view and the quadrant (70 x 56 pixels) have 2 x 2
    # tokens, because 2.5 is rounded to 2. The right half (70 x 112 pixels) has 2 x 4 tokens.
    assert batch.image_grid_thw_I3.tolist() == [[1, 4, 4], [1, 4, 4], [1, 4, 4], [1, 8, 4]]
    images_B = (batch.input_ids_BT == chat.image_token_id).sum(1)
    assert images_B.tolist() == [4, 4 + 4 + 8]
    assert batch.pixel_values_ND.shape == (4 * (4 + 4 + 4 + 8), 3 * 2 * 14 * 14)
    assert batch.mm_token_type_ids_BT.sum(1).tolist() == images_B.tolist()


def test_a_row_is_context_and_targets_in_order(chat, processor, limits):
    item = called(chat)
    batch = collate([item], IMAGES.__getitem__, processor, limits, tool_weight=5.0)
    ids = batch.input_ids_BT[0].tolist()
    assert chat.tokenizer.decode(ids) == (
        "<|im_start|>system\nLook.<|im_end|>\n<|im_start|>user\n<|vision_start|>"
        + "<|image_pad|>" * 4
        + "<|vision_end|>"
        "digit on the red circle?<|im_end|>\n<|im_start|>assistant\nGET_CROPS: ['0', '8']<|im_end|>"
        "\n<|im_start|>user\n<|vision_start|>"
        + "<|image_pad|>" * 4
        + "<|vision_end|><|vision_start|>"
        + "<|image_pad|>" * 8
        + "<|vision_end|><|im_end|>\n<|im_start|>assistant\n7<|im_end|>"
    )
    actions = batch.action_mask_BT[0]
    assert (
        tuple(batch.input_ids_BT[0][actions].tolist())
        == item.turns[0].sampled_ids + item.turns[1].sampled_ids
    )
    assert batch.weights_BT[0][actions].tolist() == [
        5.0 if tool else 1.0 for tool in item.tool_flags
    ]
    assert batch.weights_BT[0][~actions].abs().sum() == 0
    assert len(ids) == sequence_length(item, limits)


def test_records_of_episodes_stay_aligned_and_padding_is_neutral(chat, processor, limits):
    short, long = as_episode(direct(chat)), as_episode(called(chat))
    batch = collate([short, long], IMAGES.__getitem__, processor, limits)
    for row, episode in enumerate((short, long)):
        actions = batch.action_mask_BT[row]
        assert batch.behaviour_logprobs_BT[row][actions].tolist() == [
            value for turn in episode.turns for value in turn.logprobs
        ]
        assert batch.versions_BT[row][actions].tolist() == [
            value for turn in episode.turns for value in turn.versions
        ]
    length = sequence_length(short, limits)
    assert batch.attention_mask_BT[0].tolist() == [1] * length + [0] * (
        batch.input_ids_BT.shape[1] - length
    )
    assert batch.input_ids_BT[0, length:].unique().tolist() == [chat.tokenizer.pad_token_id]
    assert not batch.action_mask_BT[0, length:].any()
    assert (batch.versions_BT[~batch.action_mask_BT] == -1).all()


def test_the_crops_of_an_extreme_strip_are_accepted(chat, processor, limits):
    item = called(chat, "strip")
    batch = collate([item], IMAGES.__getitem__, processor, limits)
    features = batch.image_grid_thw_I3.prod(1).sum() // 4
    assert (batch.input_ids_BT == chat.image_token_id).sum() == features
    assert batch.input_ids_BT.shape[1] == sequence_length(item, limits)


def test_batched_two_turn_logprobs_equal_the_plain_forward(policy, chat, processor, limits):
    items = [direct(chat), called(chat), called(chat, "strip")]
    with torch.no_grad():
        batch = collate(items, IMAGES.__getitem__, processor, limits)
        padded_BT = token_logprobs(policy(**batch.forward_inputs()).logits, batch.input_ids_BT)
        lean_BT = policy_logprobs(policy, batch)
        for row, item in enumerate(items):
            alone = collate([item], IMAGES.__getitem__, processor, limits)
            inputs = {
                name: value
                for name, value in alone.forward_inputs().items()
                if name != "attention_mask"
            }
            logits_TV = policy(**inputs).logits[0]
            ids = alone.input_ids_BT[0]
            plain = torch.log_softmax(logits_TV.double(), -1)[
                torch.arange(len(ids) - 1), ids[1:]
            ].float()
            torch.testing.assert_close(padded_BT[row, 1 : len(ids)], plain, atol=2e-5, rtol=0)
            actions = alone.action_mask_BT[0]
            torch.testing.assert_close(
                lean_BT[row, : len(ids)][actions], plain[actions[1:]], atol=2e-5, rtol=0
            )
            assert lean_BT[row, : len(ids)][~actions].abs().sum() == 0


def test_sequences_of_one_image_share_the_rendered_views(chat, processor, limits, monkeypatch):
    rendered = []

    def recorded(image, view, ratio):
        rendered.append(view)
        return render(image, view, ratio)

    monkeypatch.setattr(pixels, "render", recorded)
    collate([called(chat), direct(chat), called(chat)], IMAGES.__getitem__, processor, limits)
    views = [view for turn in called(chat).turns for view in turn.views]
    assert rendered == views


def test_a_packed_pass_computes_the_logprobs_and_gradients_of_a_padded_pass(
    policy, chat, processor, limits
):
    items = [direct(chat), called(chat), called(chat, "strip")]
    batch = collate(items, IMAGES.__getitem__, processor, limits)
    assert not batch.attention_mask_BT.all(), "without padding the test shows nothing"
    rows, found = [], []
    hook = policy.model.language_model.register_forward_hook(
        lambda *seen: rows.append(seen[2].last_hidden_state.shape[:2])
    )
    with hook:
        for packed in (False, True):
            policy.zero_grad()
            logprobs_BT = policy_logprobs(policy, batch, packed=packed)
            logprobs_BT.sum().backward()
            layer = "model.language_model.layers.0.self_attn.q_proj.weight"
            found.append((logprobs_BT.detach(), policy.get_parameter(layer).grad.clone()))
    policy.zero_grad()
    assert rows == [batch.input_ids_BT.shape, (1, batch.attention_mask_BT.sum())]
    torch.testing.assert_close(found[1][0], found[0][0], atol=2e-5, rtol=0)
    torch.testing.assert_close(found[1][1], found[0][1], atol=1e-4, rtol=1e-3)


def test_logits_are_computed_at_each_rows_own_sampled_tokens(policy, chat, processor, limits):
    batch = collate(
        [direct(chat), called(chat), called(chat, "strip")], IMAGES.__getitem__, processor, limits
    )
    shapes = []
    with (
        torch.no_grad(),
        policy.lm_head.register_forward_hook(lambda *seen: shapes.append(seen[2].shape)),
    ):
        policy_logprobs(policy, batch)
    assert shapes == [(batch.action_mask_BT.sum(), policy.config.text_config.vocab_size)]


def test_image_tokens_get_image_positions(policy, chat, processor, limits):
    """Without `mm_token_type_ids`, transformers gives image tokens the positions of text."""
    batch = collate([called(chat)], IMAGES.__getitem__, processor, limits)
    inputs = batch.forward_inputs()
    with torch.no_grad():
        right = token_logprobs(policy(**inputs).logits, batch.input_ids_BT)
        wrong = token_logprobs(
            policy(**{k: v for k, v in inputs.items() if k != "mm_token_type_ids"}).logits,
            batch.input_ids_BT,
        )
    assert (right - wrong).abs().max() > 1e-3


def test_logprobs_carry_gradient_to_vision_and_text(policy, chat, processor, limits):
    batch = collate([direct(chat), called(chat)], IMAGES.__getitem__, processor, limits)
    policy.zero_grad()
    policy_logprobs(policy, batch).sum().backward()
    for name in (
        "model.visual.patch_embed.proj.weight",
        "model.language_model.layers.0.self_attn.q_proj.weight",
        "lm_head.weight",
    ):
        gradient = policy.get_parameter(name).grad
        assert gradient is not None and gradient.abs().sum() > 0, name
    policy.zero_grad()


def test_token_logprobs_by_hand():
    logits = torch.tensor([[[math.log(3.0), 0.0, 0.0], [0.0, math.log(2.0), 0.0]]])
    ids = torch.tensor([[2, 0]])
    assert token_logprobs(logits, ids).tolist() == [[0.0, pytest.approx(math.log(3 / 5))]]
    # The odds are 3 : 1 : 1. A temperature of 0.5 squares the odds, which gives 9 / (9 + 1 + 1).
    assert token_logprobs(logits, ids, temperature=0.5)[0, 1].item() == pytest.approx(
        math.log(9 / 11)
    )
    # The softmax leaves out the blocked id 1, so the probability of id 0 is 3 / (3 + 1).
    assert token_logprobs(logits, ids, blocked_ids=(1,))[0, 1].item() == pytest.approx(
        math.log(3 / 4)
    )
    assert token_logprobs(logits.bfloat16(), ids).dtype == torch.float32


def test_to_moves_every_field(chat, processor, limits):
    batch = collate([direct(chat)], IMAGES.__getitem__, processor, limits)
    moved = batch.to("meta")
    assert all(
        getattr(moved, field.name).device.type == "meta" for field in dataclasses.fields(Batch)
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"views": ()}, "1 image placeholders for 0 views"),
        ({"views": (View(None), View(None))}, "1 image placeholders for 2 views"),
        ({"sampled_ids": (262,)}, "placeholder was sampled"),
    ],
)
def test_disagreement_of_placeholders_and_views_is_one_clear_error(
    chat, processor, limits, change, message
):
    item = called(chat)
    assert chat.image_token_id == 262
    broken = dataclasses.replace(
        item, turns=(dataclasses.replace(item.turns[0], **change), *item.turns[1:])
    )
    with pytest.raises(PolicyError, match=message):
        collate([broken], IMAGES.__getitem__, processor, limits)


def test_an_image_of_another_size_and_an_episode_without_views_are_refused(chat, processor, limits):
    with pytest.raises(
        PolicyError, match=r"image blue is \(10, 10\), the episode saw \(140, 112\)"
    ):
        collate([direct(chat)], lambda _: BLUE.resize((10, 10)), processor, limits)
    empty = Episode(
        sample_id="s9",
        image="blue",
        image_size=BLUE.size,
        turns=(),
        answer=None,
        stop=StopReason.ERROR,
        visual_tokens=0,
        rtr_token=0.0,
        rtr_pixel=0.0,
    )
    with pytest.raises(PolicyError, match="s9: no view"):
        collate([empty], IMAGES.__getitem__, processor, limits)


def test_a_processor_of_another_patch_size_is_refused(chat, processor, limits):
    with pytest.raises(PolicyError, match="patch and merge sizes must be 7 and 2"):
        collate([direct(chat)], IMAGES.__getitem__, processor, dataclasses.replace(limits, patch=7))
