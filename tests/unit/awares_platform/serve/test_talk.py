"""Tests that every question gets an answer, even if the policy writes only requests or nothing."""

import pytest

from awares.lenient import mentions_request
from awares_platform.serve.talk import NO_ANSWER

CHAT = "/v1/chat/completions"
GIBBERISH = "GET_CROPS: ['99']"


def ask(client, body):
    """Return the answer, the recoveries and the whole response.

    A recovery is an action of the endpoint to get an answer, such as asking the policy again.
    """
    reply = client.post(CHAT, json=body)
    assert reply.status_code == 200, reply.text
    found = reply.json()
    return found["choices"][0]["message"]["content"], found["awares"]["recoveries"], found


def test_an_unreadable_request_is_asked_once_more(client_for, engine, chat_body, chat):
    engine.script = [GIBBERISH, "GET_CROPS: ['0']", "7"]
    answer, recoveries, reply = ask(client_for(), chat_body())
    assert (answer, recoveries, reply["awares"]["crops"]) == ("7", ["asked_again"], ["0"])
    assert "cannot be read" in chat.decode(engine.requests[1].token_ids)
    assert reply["awares"]["turns"] == 3


def test_after_two_unreadable_requests_the_whole_image_is_shown(client_for, engine, chat_body):
    engine.script = [GIBBERISH, "", "7"]
    answer, recoveries, reply = ask(client_for(), chat_body())
    assert (answer, recoveries) == ("7", ["asked_again", "whole_image"])
    assert reply["awares"]["views"][-1]["box"] == [0, 0, 112, 112]
    assert reply["awares"]["visual_tokens"] == 4 + 16


def test_a_request_in_place_of_the_answer_is_ruled_out(client_for, engine, chat_body, chat):
    engine.script = ["GET_CROPS: ['0']", "GET_CROPS: ['1']", "GET_CROPS: ['1']"]
    answer, recoveries, _ = ask(client_for(), chat_body())
    assert (answer, recoveries) == ("blocked", ["request_ruled_out"])
    last = engine.requests[-1].sampling
    assert chat.encode("G")[0] in last.blocked_ids and last.min_tokens == 1
    assert engine.requests[-1].token_ids == engine.requests[-2].token_ids


def test_a_policy_that_never_answers_gets_a_sentence(client_for, engine, chat_body):
    engine.script = [""] * 8
    answer, recoveries, reply = ask(client_for(), chat_body())
    assert answer == NO_ANSWER == reply["choices"][0]["message"]["refusal"]
    assert recoveries == ["asked_again", "whole_image", "request_ruled_out", "no_answer"]


@pytest.mark.parametrize(
    "form",
    ["GET_CROP: ['3']", "GET\\_CROPS: ['3']", "getCrops(3)", "get_crops", "**GET_CROPS** maybe 3"],
)
def test_no_request_text_reaches_a_client(client_for, engine, chat_body, form):
    for script in ([form] * 8, ["GET_CROPS: ['0']"] + [form] * 8):
        engine.script = script
        answer, _, _ = ask(client_for(), chat_body())
        assert answer and not mentions_request(answer)


def test_a_lenient_request_goes_on_in_the_form_of_training(client_for, engine, chat_body, chat):
    engine.script = ["**GET_CROP**: top-left quarter", "7"]
    answer, recoveries, _ = ask(client_for(), chat_body())
    assert (answer, recoveries) == ("7", ["lenient"])
    assert "assistant\nGET_CROPS: ['0']" in chat.decode(engine.requests[1].token_ids)


def question_leaving(chat, tokens, max_tokens):
    """Return a question that leaves exactly `tokens` tokens of the context for requested views.

    The context of 512 tokens also holds a request and an answer of `max_tokens` tokens.
    """
    empty, one = len(chat.tool_reply(0)), len(chat.tool_reply(1))
    request = len(chat.target("GET_CROPS: ['all']"))
    reply = request + empty + 4 * (one - empty - 1)
    text = len(chat.first_turn("")) - 1 + 4
    return "x" * (512 - text - reply - max_tokens - tokens)


def test_crops_that_do_not_fit_the_context_become_smaller(client_for, engine, chat_body, chat):
    engine.script = ["GET_CROPS: ['all']", "7"]
    question = question_leaving(chat, 9, 20)
    answer, recoveries, reply = ask(client_for(max_tokens=20), chat_body(question=question))
    assert (answer, recoveries) == ("7", ["smaller_crops"])
    assert reply["awares"]["visual_tokens"] == 4 + 9


def test_without_room_for_any_crop_the_policy_answers_from_what_it_has(
    client_for, engine, chat_body, chat
):
    engine.script = ["GET_CROPS: ['all']", "7"]
    question = question_leaving(chat, 0, 20)
    answer, recoveries, reply = ask(client_for(max_tokens=20), chat_body(question=question))
    assert (answer, recoveries, reply["awares"]["crops"]) == ("7", ["no_room"], [])
    assert engine.requests[1].token_ids == engine.requests[0].token_ids


def test_a_low_view_that_does_not_fit_becomes_smaller(client_for, engine, chat_body):
    engine.script = ["7"]
    _, _, reply = ask(client_for(), chat_body(awares={"budget": 2}))
    assert reply["awares"]["visual_tokens"] == 1
    assert reply["usage"]["prompt_tokens_details"]["image_tokens"] == 1


def test_the_mode_decides_what_the_policy_sees(client_for, engine, chat_body):
    client = client_for()
    seen = {}
    for mode in ("low", "full", "auto"):
        engine.script = ["GET_CROPS: ['0']", "7"]
        _, recoveries, reply = ask(client, chat_body(awares={"mode": mode}))
        seen[mode] = (reply["awares"]["visual_tokens"], reply["awares"]["crops"], recoveries)
    assert seen == {
        "low": (4, [], ["request_ruled_out"]),
        "full": (16, [], ["request_ruled_out"]),
        "auto": (8, ["0"], []),
    }


def test_each_image_has_its_own_low_view_and_crops(client_for, engine, chat_body):
    engine.script = ["GET_CROPS: ['3']", "7"]
    body = chat_body()
    content = body["messages"][0]["content"]
    body["messages"][0]["content"] = [content[0], *content]
    _, _, reply = ask(client_for(), body)
    views = [(one["image"], one["region"], one["box"]) for one in reply["awares"]["views"]]
    assert views == [
        (0, None, [0, 0, 112, 112]),
        (1, None, [0, 0, 112, 112]),
        (0, "3", [56, 56, 112, 112]),
        (1, "3", [56, 56, 112, 112]),
    ]
    assert [len(request.images) for request in engine.requests] == [2, 4]
    assert reply["awares"]["views"][2]["fraction"] == [0.5, 0.5, 1, 1]


def test_a_schema_binds_the_answer_and_no_request(client_for, engine, chat_body):
    schema = {"type": "object", "properties": {"answer": {"type": "string"}}}
    asked = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    engine.script = ["GET_CROPS: ['0']", '{"answer": "7"}', "7", '{"answer": "7"}']
    client = client_for()
    for _ in range(2):
        answer, _, _ = ask(client, chat_body(response_format=asked))
        assert answer == '{"answer": "7"}'
    bound = [request.sampling.grammar is not None for request in engine.requests]
    assert bound == [False, True, False, True]


def test_choices_differ_by_seed_and_stops_cut(client_for, engine, chat_body):
    engine.script = ["7. Yes", "8. No"]
    reply = client_for().post(CHAT, json=chat_body(n=2, seed=2**63 - 1, stop=[".", "Y"])).json()
    assert [choice["message"]["content"] for choice in reply["choices"]] == ["7", "8"]
    assert [request.sampling.seed for request in engine.requests] == [2**63 - 1, 0]
    assert [choice["finish_reason"] for choice in reply["choices"]] == ["stop", "stop"]


def test_logprobs_name_the_tokens_of_the_answer(client_for, engine, chat_body):
    engine.script = ["GET_CROPS: ['0']", "42"]
    reply = client_for().post(CHAT, json=chat_body(logprobs=True)).json()
    entries = reply["choices"][0]["logprobs"]["content"]
    assert [(one["token"], one["logprob"], one["bytes"]) for one in entries] == [
        ("4", -0.5, [52]),
        ("2", -0.5, [50]),
    ]
