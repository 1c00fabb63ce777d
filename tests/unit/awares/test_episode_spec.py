"""Tests that no request and no question makes an episode exceed the engine's context."""

import asyncio
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from awares.budget import Budget, budget_text
from awares.crops import CropId
from awares.environment import Malformed, Request
from awares.episode import StopReason, run_episode
from awares.episode_spec import EpisodeSpec, check_room, grant, longest
from awares.errors import DataError
from awares.generate import FinishReason, Generation, Sampling
from awares.one_turn import OneTurn
from awares.protocol import format_request
from awares.sample import Sample
from awares.ten_crops import TenCrops
from awares.tokens import VisionLimits
from awares.view import View
from awares.view_rule import ViewRule
from awares.whole_image import WholeImage

LIMITS = VisionLimits(min_pixels=4 * 784)
BUDGET = Budget(visual_tokens=4096, crops=4, context=8192)
SPEC = EpisodeSpec(LIMITS, sampling=Sampling(max_tokens=512), budget=BUDGET)
PAGE = (1700, 2200)
SIZES = st.tuples(st.integers(1, 9000), st.integers(1, 9000))
CROPS = st.lists(st.sampled_from(CropId), min_size=1, unique=True).map(tuple)
RULES = st.builds(
    ViewRule,
    st.sampled_from(("relative", "paper", "released")),
    st.sampled_from((0.5, 1.0, 2.0, None)),
)
ENVIRONMENTS = st.one_of(
    st.builds(TenCrops, rule=RULES, small_images=st.sampled_from(("crops", "whole"))),
    st.builds(WholeImage, rule=RULES),
)


def prompts(spec, size, request, chat):
    """Return how many tokens and images turn 2's prompt has, or None for a malformed request.

    The request is assumed to have the largest number of tokens that a turn may have.
    """
    first = spec.environment.first_view(size)
    granted = grant(spec, request, [first], size)
    if isinstance(granted, Malformed):
        return None
    views = (first, *granted[1])
    text = len(chat.first_turn("?")) - 1 + len(chat.tool_reply(len(granted[1])))
    asked = spec.sampling.max_tokens
    return text - len(granted[1]) + spec.tokens(views, size) + asked, len(views)


@settings(max_examples=300, deadline=None)
@given(environment=ENVIRONMENTS, size=SIZES, crops=CROPS, fit=st.booleans())
def test_every_legal_request_fits_the_context(chat, environment, size, crops, fit):
    spec = replace(SPEC, environment=environment, budget=replace(BUDGET, fit=fit))
    try:
        check_room(spec, "?", size, chat)
    except DataError:
        assert longest(spec, "?", size, chat) > BUDGET.context
        return
    found = prompts(spec, size, Request(crops), chat)
    if found is not None:
        tokens, images = found
        assert tokens + spec.sampling.max_tokens <= longest(spec, "?", size, chat) <= BUDGET.context
        assert images <= 1 + BUDGET.crops


@settings(max_examples=200, deadline=None)
@given(size=SIZES, crops=CROPS, views=st.sampled_from(("relative", "paper", "released")))
def test_serving_answers_every_request_within_the_budget(size, crops, views):
    spec = replace(
        SPEC, environment=TenCrops(rule=ViewRule(views)), budget=replace(BUDGET, fit=True)
    )
    first = spec.environment.first_view(size)
    request, shown = grant(spec, Request(crops), [first], size)
    assert request.regions == crops[:4] and len(shown) == len(request.regions)
    assert spec.tokens([first, *shown], size) <= BUDGET.visual_tokens


@settings(max_examples=200, deadline=None)
@given(
    size=SIZES,
    crops=CROPS,
    tokens=st.sampled_from((16, 64, 512)),
    views=st.sampled_from(("relative", "paper", "released")),
)
def test_serving_answers_every_request_within_a_small_budget(size, crops, tokens, views):
    """Check that a request gets at least one view, even if the budget is small.

    The endpoint shrinks the first view only if fewer than 8 tokens of the budget would be left.
    """
    spec = replace(
        SPEC,
        environment=TenCrops(rule=ViewRule(views)),
        budget=Budget(visual_tokens=tokens, crops=4, context=8192, fit=True),
    )
    first = spec.first_view(size)
    whole = spec.environment.first_view(size)
    assert first == whole or spec.tokens([whole], size) > tokens - 8
    granted = grant(spec, Request(crops), [first], size)
    assert not isinstance(granted, Malformed)
    assert spec.tokens([first, *granted[1]], size) <= tokens


def test_only_serving_shrinks_a_first_view_that_leaves_no_room():
    small = replace(SPEC, budget=Budget(visual_tokens=512, crops=4, context=8192))
    fitting = replace(small, budget=replace(small.budget, fit=True))
    assert small.tokens([small.first_view(PAGE)], PAGE) == 520
    assert 200 < fitting.tokens([fitting.first_view(PAGE)], PAGE) <= 256
    once = replace(fitting, environment=TenCrops(max_turns=1))
    assert once.first_view(PAGE) == small.first_view(PAGE)


def test_four_crops_of_a_page_are_malformed_if_they_exceed_the_budget(chat):
    """Check that the budget refuses four halves of a page, which exceed 8,192 tokens.

    By the paper's rule for views, half of a page costs about as much as the whole page.
    """
    spec = replace(SPEC, environment=TenCrops(rule=ViewRule("paper")))
    halves = Request(("5", "6", "7", "8"))
    unbounded = replace(spec, budget=None)
    tokens, images = prompts(unbounded, PAGE, halves, chat)
    assert tokens > 8192 and images == 5
    refused = grant(spec, halves, [View()], PAGE)
    assert isinstance(refused, Malformed) and "are left" in refused.reason
    tokens, _ = prompts(SPEC, PAGE, Request(("0", "1", "2", "3")), chat)
    assert tokens < 8192


def test_crops_of_earlier_turns_count():
    spec = replace(SPEC, environment=TenCrops(max_turns=3))
    shown = [View(), *spec.environment.views(Request(("0", "1", "2")), (112, 112))]
    assert grant(spec, Request(("3",)), shown, (112, 112))[0] == Request(("3",))
    assert isinstance(grant(spec, Request(("3", "4")), shown, (112, 112)), Malformed)


def test_a_request_that_cannot_fit_at_all_is_malformed_when_serving():
    tight = replace(SPEC, budget=Budget(visual_tokens=5, crops=4, context=8192, fit=True))
    assert isinstance(grant(tight, Request(("0",)), [View()], (112, 112)), Malformed)


def play(chat, spec, text, image):
    async def engine(request):
        said = text if len(request.images) == 1 else "7"
        ids = chat.target(said)
        return Generation(ids, (0.0,) * len(ids), (0,) * len(ids), FinishReason.STOP)

    sample = Sample("s", "hash", "?", "7")
    return asyncio.run(run_episode(sample, image, engine, chat, spec, "e"))


def test_an_episode_over_the_budget_is_malformed_in_training_and_answered_when_serving(chat):
    image = Image.new("RGB", (448, 448))
    bounded = replace(SPEC, budget=Budget(visual_tokens=200, crops=2, context=4096))
    text = format_request(("all", "0", "1"))
    training = play(chat, bounded, text, image)
    assert (training.stop, training.crops, training.error) == (StopReason.MALFORMED, (), "")
    serving = replace(bounded, budget=replace(bounded.budget, fit=True))
    served = play(chat, serving, text, image)
    assert (served.stop, served.answer, served.crops) == (StopReason.ANSWER, "7", ("all", "0"))
    assert 150 < served.visual_tokens <= 200 and served.area == 1.25


@pytest.mark.parametrize(
    ("environment", "visual"),
    [(TenCrops(), 4096), (OneTurn(TenCrops(), full=True), 1989), (TenCrops(max_turns=1), 520)],
)
def test_the_question_gets_the_room_that_views_and_turns_leave(chat, environment, visual):
    spec = replace(SPEC, environment=environment)
    turns = environment.max_turns
    text = len(chat.first_turn("why?")) - 1 + (turns - 1) * (len(chat.tool_reply(0)) + 4 * 2)
    needed = longest(spec, "why?", PAGE, chat)
    assert needed == text + visual + turns * 512
    check_room(replace(spec, budget=replace(BUDGET, context=needed)), "why?", PAGE, chat)
    with pytest.raises(DataError, match=f"need {needed} tokens of {needed - 1} .engine.max_model"):
        check_room(replace(spec, budget=replace(BUDGET, context=needed - 1)), "why?", PAGE, chat)


def test_without_a_budget_every_request_is_granted(chat):
    spec = replace(SPEC, budget=None)
    everything = Request(tuple(CropId))
    assert grant(spec, everything, [View()], PAGE)[0] == everything
    check_room(spec, "x" * 9000, PAGE, chat)


def test_the_prompt_states_the_budget():
    assert budget_text(4096, 4) == (
        "You can see at most 4 regions and at most 4096 visual tokens in all, the small version "
        "included."
    )
