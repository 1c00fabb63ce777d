"""Writes answers in OpenAI's formats: one response body, or the chunks of a stream.

    stream: for each choice    a chunk with the role
            first choice       a chunk each time the policy gets crops
            for each choice    a chunk with the text, and a chunk with the finish reason
            at the end         a chunk with the usage if the client asks for it, then [DONE]

The additional key `awares` describes crops, token counts and times.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from awares.chat import ChatFormat
from awares.tokens import Size
from awares_platform.serve.allotment import ShownView
from awares_platform.serve.croploop import ServedAnswer
from awares_platform.serve.talk import NO_ANSWER

DONE = b"data: [DONE]\n\n"


class Completion:
    """The reply to one request.

    If `logprobs` is true, the reply has the logprob and the text of each token of the answer. The
    text comes from `chat`, which decodes token ids.

    Example:
        Completion("chatcmpl-1", "awares", 1_700_000_000, chat, logprobs=False).body(answers)
    """

    def __init__(
        self, request_id: str, model: str, created: int, chat: ChatFormat, *, logprobs: bool
    ) -> None:
        self._head = {"id": request_id, "created": created, "model": model}
        self._chat, self._logprobs = chat, logprobs

    def body(self, answers: Sequence[ServedAnswer]) -> dict[str, Any]:
        """Return the body of a response that is not streamed."""
        return {
            **self._head,
            "object": "chat.completion",
            "system_fingerprint": fingerprint(answers[0]),
            "choices": [self._choice(index, answer) for index, answer in enumerate(answers)],
            "usage": usage(answers),
            "awares": description(answers[0]),
        }

    def opening(self, choices: int) -> bytes:
        """Return the first chunks of a stream, which name the role of each choice."""
        deltas = [{"role": "assistant", "content": ""} for _ in range(choices)]
        return b"".join(self._chunk(index, delta) for index, delta in enumerate(deltas))

    def crops(self, views: Sequence[ShownView], sizes: Sequence[Size]) -> bytes:
        """Return the chunk that describes the views of a granted request. It has no text."""
        event = {"event": "crops", "views": [view_row(one, sizes) for one in views]}
        return self._chunk(0, {}, awares=event)

    def closing(self, answers: Sequence[ServedAnswer], *, include_usage: bool) -> Iterator[bytes]:
        """Yield the chunks with the answers, the finish reasons and the usage, then [DONE]."""
        for index, answer in enumerate(answers):
            logprobs = self._entries(answer)
            yield self._chunk(index, {"content": answer.text}, logprobs=logprobs)
            yield self._chunk(index, {}, finish=answer.finish, awares=description(answer))
        if include_usage:
            chunk = {**self._head, "object": "chat.completion.chunk", "choices": []}
            yield event({**chunk, "usage": usage(answers)})
        yield DONE

    def _choice(self, index: int, answer: ServedAnswer) -> dict[str, Any]:
        message = {"role": "assistant", "content": answer.text, "refusal": _refusal(answer)}
        choice: dict[str, Any] = {
            "index": index,
            "message": message,
            "finish_reason": answer.finish,
            "logprobs": self._entries(answer),
        }
        return choice | ({"awares": description(answer)} if index else {})

    def _chunk(
        self,
        index: int,
        delta: dict[str, Any],
        *,
        finish: str | None = None,
        logprobs: dict[str, Any] | None = None,
        awares: dict[str, Any] | None = None,
    ) -> bytes:
        choice = {"index": index, "delta": delta, "finish_reason": finish, "logprobs": logprobs}
        chunk = {**self._head, "object": "chat.completion.chunk", "choices": [choice]}
        return event(chunk | ({"awares": awares} if awares else {}))

    def _entries(self, answer: ServedAnswer) -> dict[str, Any] | None:
        """Return the logprobs of the answer's tokens, if the request asks for them."""
        if not self._logprobs:
            return None
        pairs = zip(answer.played.ids, answer.played.logprobs, strict=True)
        entries = [
            _entry(self._chat.decode((token,)), logprob)
            for token, logprob in pairs
            if token not in self._chat.stop_ids
        ]
        return {"content": entries, "refusal": None}


def event(body: dict[str, Any]) -> bytes:
    """Return one server-sent event with a JSON body."""
    return b"data: " + json.dumps(body, ensure_ascii=False).encode() + b"\n\n"


def usage(answers: Sequence[ServedAnswer]) -> dict[str, Any]:
    """Return the token counts of a response.

    The counts of the prompt describe the first choice. The counts of sampled tokens are sums over
    all choices. `reasoning_tokens` counts the sampled tokens outside the answers, such as requests
    for crops.
    """
    prompt, visual = answers[0].played.prompt, answers[0].visual_tokens
    sampled = sum(answer.played.sampled for answer in answers)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": sampled,
        "total_tokens": prompt + sampled,
        "prompt_tokens_details": {
            "image_tokens": visual,
            "text_tokens": prompt - visual,
            "cached_tokens": answers[0].played.cached,
        },
        "completion_tokens_details": {"reasoning_tokens": sum(answer.hidden for answer in answers)},
    }


def description(answer: ServedAnswer) -> dict[str, Any]:
    """Return the value of the key `awares` for one choice."""
    played, sizes = answer.played, answer.sizes
    return {
        "crops": list(played.regions),
        "boxes": [list(one.view.box) for one in played.shown if one.region and one.view.box],
        "views": [view_row(one, sizes) for one in played.shown],
        "image_size": list(sizes[0]) if sizes else None,
        "image_sizes": [list(size) for size in sizes],
        "visual_tokens": answer.visual_tokens,
        "full_tokens": answer.full_tokens,
        "rtr_token": answer.rtr_token,
        "rtr_pixel": answer.rtr_pixel,
        "turns": played.rounds,
        "stop": "length" if answer.finish == "length" else "answer",
        "recoveries": list(played.recoveries),
        "notes": list(answer.notes),
        "latency_s": answer.total_s,
        "times": {
            "decode_s": answer.decode_s,
            "render_s": played.render_s,
            "engine_s": played.engine_s,
            "total_s": answer.total_s,
        },
        "weight_version": played.version,
    }


def view_row(one: ShownView, sizes: Sequence[Size]) -> dict[str, Any]:
    """Return a view as JSON. `fraction` is the box as fractions of the image's width and height."""
    width, height = sizes[one.image]
    left, top, right, bottom = one.view.box or (0, 0, width, height)
    return {
        "image": one.image,
        "region": one.region,
        "box": [left, top, right, bottom],
        "fraction": [left / width, top / height, right / width, bottom / height],
        "visual_tokens": one.tokens,
    }


def fingerprint(answer: ServedAnswer) -> str:
    """Return OpenAI's `system_fingerprint`, which names the weights that sampled the answer."""
    return f"weights-{answer.played.version}"


def _entry(text: str, logprob: float) -> dict[str, Any]:
    whole = "\N{REPLACEMENT CHARACTER}" not in text
    return {
        "token": text,
        # JSON has no infinity. OpenAI uses -9999.0 for a very unlikely token.
        "logprob": max(logprob, -9999.0),
        "bytes": list(text.encode()) if whole else None,
        "top_logprobs": [],
    }


def _refusal(answer: ServedAnswer) -> str | None:
    return NO_ANSWER if answer.played.text == NO_ANSWER else None
