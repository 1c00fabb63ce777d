"""Tests that a base policy gets the same prompt as from the model's own chat template."""

import pytest

from awares.chat import ChatFormat, template_prompt
from awares.errors import PolicyError

QWEN2_5_VL = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}<|im_end|>\n{% else %}"
    "{% for content in message['content'] %}{% if content['type'] == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% elif 'text' in content %}"
    "{{ content['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
QUESTION = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "why?"}]}]


@pytest.fixture
def templated(tokenizer):
    """Return a function that gives the tokenizer a chat template until the test ends."""
    before = tokenizer.chat_template

    def use(template):
        tokenizer.chat_template = template
        return tokenizer

    yield use
    tokenizer.chat_template = before


def test_the_prompt_has_the_ids_of_the_template(templated):
    tokenizer = templated(QWEN2_5_VL)
    prompt = template_prompt(tokenizer)
    assert prompt == "You are a helpful assistant."
    text = tokenizer.apply_chat_template(QUESTION, tokenize=False, add_generation_prompt=True)
    expected = tokenizer.encode(text, add_special_tokens=False)
    assert list(ChatFormat(tokenizer, prompt).first_turn("why?")) == expected


def test_a_template_without_a_system_message_gives_no_prompt(templated):
    plain = QWEN2_5_VL.replace("loop.first", "false")
    assert template_prompt(templated(plain)) == ""


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (None, "has no chat template"),
        ("{{ messages[0]['role'] }}: ", "does not write the layout of"),
        (QWEN2_5_VL.replace("[% ", "{% ").replace("assistant\n", "model\n"), "the layout of"),
        ("{{ raise_exception('only text') }}", "only text"),
    ],
)
def test_an_unsuitable_template_is_named(templated, template, message):
    with pytest.raises(PolicyError, match=message):
        template_prompt(templated(template))
