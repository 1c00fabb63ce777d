"""Provides fixtures that connect a scripted engine to the real crop loop and HTTP application."""

import base64
import io
from collections.abc import Callable

import pytest
from PIL import Image
from starlette.testclient import TestClient
from tokenizers import Tokenizer, models, pre_tokenizers
from tokenizers.decoders import ByteLevel
from transformers import PreTrainedTokenizerFast

from awares.budget import Budget
from awares.chat import ChatFormat
from awares.episode_spec import EpisodeSpec
from awares.generate import FinishReason, GenerateRequest, Generation, Sampling
from awares.images import DecodeLimits
from awares.tokens import VisionLimits
from awares_platform.config.serve import ServeConfig
from awares_platform.serve.croploop import CropLoop
from awares_platform.serve.gate import Gate
from awares_platform.serve.keys import Keyring
from awares_platform.serve.remote import RemoteImages
from awares_platform.serve.routes import Healthy, Routes, create_app

SPECIAL = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
]


class ScriptedEngine:
    """An engine that answers each request with the next line of `script`, and records all requests.

    A line that is an exception is raised. The answer is "blocked" if the request blocks the line's
    first token.
    """

    def __init__(self, chat: ChatFormat) -> None:
        self.chat, self.script, self.requests = chat, [], []

    async def __call__(self, request: GenerateRequest) -> Generation:
        self.requests.append(request)
        line = self.script.pop(0)
        if isinstance(line, Exception):
            raise line
        first = set(request.sampling.blocked_ids)
        if first.intersection(self.chat.encode(line)[:1]):
            line = "blocked"
        ids = self.chat.target(line)[: request.sampling.max_tokens]
        finish = FinishReason.STOP if ids[-1] in self.chat.stop_ids else FinishReason.LENGTH
        return Generation(ids, (-0.5,) * len(ids), (3,) * len(ids), finish, cached=10)


@pytest.fixture(scope="session")
def chat() -> ChatFormat:
    """Return a chat format whose tokenizer has one token per byte, and Qwen's special tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(
        models.BPE(vocab={letter: index for index, letter in enumerate(alphabet)}, merges=[])
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer)
    fast.add_special_tokens({"additional_special_tokens": SPECIAL})
    return ChatFormat(fast)


@pytest.fixture
def engine(chat: ChatFormat) -> ScriptedEngine:
    return ScriptedEngine(chat)


@pytest.fixture
def crop_loop(engine: ScriptedEngine, chat: ChatFormat) -> CropLoop:
    spec = EpisodeSpec(
        limits=VisionLimits(min_pixels=784, max_pixels=784 * 64),
        low_ratio=0.5,
        sampling=Sampling(),
        budget=Budget(visual_tokens=128, crops=4, context=512, fit=True),
    )
    return CropLoop(engine, chat, spec, DecodeLimits(max_pixels=1_000_000), 8, 20_000_000)


async def _healthy() -> None:
    pass


@pytest.fixture
def client_for(crop_loop: CropLoop) -> Callable[..., TestClient]:
    """Return a factory for HTTP clients of the application.

    Keyword arguments of the factory can set fields of ServeConfig.
    """

    def build(
        token: str | None = None,
        gate: Gate | None = None,
        remote: RemoteImages | None = None,
        healthy: Healthy = _healthy,
        **fields: object,
    ) -> TestClient:
        routes = Routes(
            crop_loop,
            ServeConfig.model_validate(fields),
            gate or Gate(Keyring(token)),
            healthy,
            remote,
        )
        return TestClient(create_app(routes), raise_server_exceptions=False)

    return build


@pytest.fixture(scope="session")
def png() -> bytes:
    """Return a PNG of 112 x 112 pixels.

    The image has 16 visual tokens at full resolution, 4 in the low view and 4 in a quadrant.
    """
    buffer = io.BytesIO()
    Image.effect_noise((112, 112), 60).convert("RGB").save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="session")
def chat_body(png: bytes) -> Callable[..., dict]:
    """Return a factory for bodies of chat requests.

    Arguments of the factory set the question, the image and further fields of the body.
    """

    def build(question: str = "which digit?", image: bytes | str = png, **fields: object) -> dict:
        url = (
            image
            if isinstance(image, str)
            else f"data:image/png;base64,{base64.b64encode(image).decode()}"
        )
        content = [
            {"type": "image_url", "image_url": {"url": url}},
            {"type": "text", "text": question},
        ]
        return {"model": "awares", "messages": [{"role": "user", "content": content}], **fields}

    return build
