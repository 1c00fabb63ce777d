"""Tests that the endpoint accepts what real clients send, and gives a reason for each refusal."""

import base64
import json
from pathlib import Path

import pytest

CHAT = "/v1/chat/completions"
ROWS = [
    json.loads(line)
    for line in (Path(__file__).parent / "client_payloads.jsonl").read_text("utf-8").splitlines()
]
OF_CLIENTS = [row for row in ROWS if not row["client"].startswith("hand-written")]
LEAST_ACCEPTED = 0.9


def body_of(row: dict, png: bytes) -> bytes:
    """Return a row's request body. Replace IMAGE with `png`, and QUESTION with a question."""
    text = json.dumps(row["body"]).replace("IMAGE", base64.b64encode(png).decode())
    return text.replace("QUESTION", "which digit?").encode()


def test_90_percent_of_the_payloads_of_clients_are_to_be_accepted():
    assert len(OF_CLIENTS) >= 30
    accepted = sum(row["status"] == 200 for row in OF_CLIENTS)
    assert accepted / len(OF_CLIENTS) >= LEAST_ACCEPTED
    clients = {row["client"].partition(":")[0] for row in OF_CLIENTS}
    named = {"openai python", "openai node", "curl", "lmms-eval", "LiteLLM", "langchain-openai"}
    assert clients == named


@pytest.mark.parametrize("row", ROWS, ids=[row["client"] for row in ROWS])
def test_a_payload_gets_its_status(client_for, engine, png, row):
    engine.script = ["7"] * 4
    reply = client_for().post(CHAT, content=body_of(row, png))
    assert reply.status_code == row["status"], reply.text
    if row["status"] != 200:
        error = reply.json()["error"]
        assert error["param"] == row["reason"] and error["message"].startswith(row["reason"])
    elif row["body"].get("stream"):
        assert reply.text.endswith("data: [DONE]\n\n") and '"content": "7"' in reply.text
    else:
        choices = reply.json()["choices"]
        assert [choice["message"]["content"] for choice in choices] == ["7"] * len(choices)
        assert len(choices) == (row["body"].get("n") or 1)


def test_the_policy_reads_a_conversation_as_its_chat_layout(client_for, engine, png, chat):
    row = next(row for row in ROWS if "two turns" in row["client"])
    engine.script = ["7"]
    client_for().post(CHAT, content=body_of(row, png))
    text = chat.tokenizer.decode(list(engine.requests[0].token_ids))
    image = "<|vision_start|><|image_pad|><|vision_end|>"
    assert text == (
        f"<|im_start|>user\n{image}which digit?<|im_end|>\n<|im_start|>assistant\n7<|im_end|>\n"
        f"<|im_start|>user\n{image}And here?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert len(engine.requests[0].images) == 2


def test_instructions_follow_the_system_prompt(chat):
    from awares.chat import ChatFormat, Said

    own = ChatFormat(chat.tokenizer, "Ask for crops.")
    question = [Said("user", "which digit?", images=1)]
    assert own.conversation(question) == own.first_turn("which digit?")
    text = own.tokenizer.decode(list(own.conversation(question, "Be brief.")))
    assert text.startswith("<|im_start|>system\nAsk for crops.\n\nBe brief.<|im_end|>\n")


@pytest.mark.parametrize("name", ["<|im_end|>", "<|image_pad|>", "<|endoftext|>"])
def test_no_text_of_a_client_becomes_a_special_token(client_for, engine, chat_body, chat, name):
    engine.script = ["7"]
    body = chat_body(question=f"a {name} b")
    body["messages"] = [
        {"role": "system", "content": name},
        {"role": "user", "content": name},
        {"role": "assistant", "content": name},
        *body["messages"],
    ]
    assert client_for().post(CHAT, json=body).status_code == 200
    ids = engine.requests[0].token_ids
    assert ids.count(chat.image_token_id) == 1 and ids.count(chat.end_id) == 4
    assert chat.tokenizer.convert_tokens_to_ids("<|endoftext|>") not in ids
