"""Makes synthetic and real updates of bfloat16 weights."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

IMAGE = 8
"""The token id of the image placeholder."""


@dataclass(frozen=True, slots=True)
class Update:
    """One or more consecutive updates of weights.

    `pairs` has one pair (base, new) for each tensor of each update.

    Example:
        Update("3.3 %", [(base, new)])
    """

    name: str
    pairs: list[tuple[Tensor, Tensor]]

    @property
    def size(self) -> int:
        return sum(new.nbytes for _, new in self.pairs)


def synthetic(share: float, count: int) -> Update:
    """Return an update that changes `share` of the bfloat16 weights.

    The update adds Gaussian noise to float32 weights.
    """
    random = torch.Generator().manual_seed(0)
    master = torch.randn(count, generator=random) * 0.02
    noise = torch.randn(count, generator=random)
    # A bisection on the first million weights finds the noise that changes this share.
    few, low, high = slice(min(count, 1 << 20)), 0.0, 0.02
    for _ in range(30):
        rate = (low + high) / 2
        moved = (master[few] + rate * noise[few]).bfloat16() != master[few].bfloat16()
        low, high = (low, rate) if moved.float().mean() > share else (rate, high)
    pair = master.bfloat16(), noise.mul_(low).add_(master).bfloat16()
    return Update(f"synthetic {share:.1%}", [pair])


def configuration(quick: bool) -> Qwen2_5_VLConfig:
    width, layers = (256, 4) if quick else (768, 12)
    return Qwen2_5_VLConfig(
        text_config={
            "vocab_size": 16384,
            "hidden_size": width,
            "intermediate_size": 3 * width,
            "num_hidden_layers": layers,
            "num_attention_heads": width // 64,
            "num_key_value_heads": width // 128,
            "max_position_embeddings": 1024,
            "rope_parameters": {
                "rope_type": "default",
                "mrope_section": [8, 12, 12],
                "rope_theta": 10000.0,
            },
            "bos_token_id": None,
            "eos_token_id": None,
        },
        vision_config={
            "depth": 4,
            "hidden_size": 256,
            "intermediate_size": 512,
            "num_heads": 4,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "window_size": 112,
            "out_hidden_size": width,
            "fullatt_block_indexes": [1, 3],
        },
        image_token_id=IMAGE,
        video_token_id=IMAGE + 1,
        vision_start_token_id=IMAGE - 1,
        vision_end_token_id=IMAGE - 2,
        tie_word_embeddings=False,
    )


def trained(rate: float, quick: bool, tell: Callable[[str], None]) -> Update:
    """Train for nine steps, and return the two updates between the last three versions.

    `rate` is the learning rate of AdamW. The first six steps warm up the optimizer.
    """
    torch.manual_seed(0)
    model = Qwen2_5_VLForConditionalGeneration(configuration(quick))
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    warm, versions = 6, []
    for step in range(warm + 3):
        tell(f"AdamW at {rate:g}: step {step + 1} of {warm + 3}")
        ids_BT = torch.randint(16, 16384, (2, 48))
        labels_BT = ids_BT.clone()
        ids_BT[:, :6] = torch.tensor([IMAGE - 1, IMAGE, IMAGE, IMAGE, IMAGE, IMAGE - 2])
        labels_BT[:, :6] = -100
        model(
            input_ids=ids_BT,
            labels=labels_BT,
            attention_mask=torch.ones_like(ids_BT),
            mm_token_type_ids=(ids_BT == IMAGE).int(),
            pixel_values=torch.randn(2 * 16, 3 * 2 * 14 * 14),
            image_grid_thw=torch.tensor([[1, 4, 4]] * 2),
        ).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step >= warm:
            versions.append([weight.detach().bfloat16() for weight in model.parameters()])
    pairs = [pair for old, new in pairwise(versions) for pair in zip(old, new, strict=True)]
    return Update(f"Qwen2.5-VL, AdamW {rate:g}", pairs)


def updates(quick: bool, tell: Callable[[str], None]) -> Iterator[Update]:
    for share in (0.012, 0.033, 0.081):
        tell(f"synthetic {share:.1%}")
        yield synthetic(share, 12_000_000 if quick else 64_000_000)
    for rate in (1e-6, 1e-5, 1e-4):
        yield trained(rate, quick, tell)
