"""Defines the assumptions of a plan. Each assumption is an option of `awares plan`."""

import re
from dataclasses import dataclass, fields, replace

from awares.crops import CropId
from awares.errors import ConfigError

_SIZE = re.compile(r"[1-9]\d{0,4}x[1-9]\d{0,4}")
_SHARES = ("train_mfu", "prefill_mfu", "decode_efficiency")
_GPU = ("gpu_gib", "peak_tflops", "hbm_gbs")
_POSITIVE = (*_GPU, *(f"rollout_{name}" for name in _GPU), "adapter_mbs")


@dataclass(frozen=True, slots=True)
class Assumptions:
    """Assumptions about the GPUs, the data and the behaviour of the policy.

    The defaults describe an H100 SXM (80 GB), scanned pages, and the paper's policy after SFT.

    Example:
        Assumptions(gpu_gib=39.5, peak_tflops=312, hbm_gbs=1555)  # A100 40 GB
    """

    gpu_gib: float = 79.6
    """Memory of one GPU in GiB, as nvidia-smi shows it."""
    peak_tflops: float = 989.0
    """Dense bfloat16 peak of one GPU in TFLOPS (H100 SXM 989, A100 312, L40S 362)."""
    hbm_gbs: float = 3350.0
    """Memory bandwidth of one GPU in GB/s (H100 SXM 3350, A100 40 GB 1555, L40S 864)."""
    rollout_gpu_gib: float | None = None
    """`gpu_gib` of the rollout engines' GPUs. None means the value of the trainers' GPUs."""
    rollout_peak_tflops: float | None = None
    """`peak_tflops` of the rollout engines' GPUs. None means the value of the trainers' GPUs."""
    rollout_hbm_gbs: float | None = None
    """`hbm_gbs` of the rollout engines' GPUs. None means the value of the trainers' GPUs."""
    train_mfu: float = 0.3
    """Model FLOPs utilisation of a trainer: model FLOPs per second divided by the peak. FLOPs that
    recompute activations do not count."""
    prefill_mfu: float = 0.4
    """Model FLOPs utilisation of an engine while it prefills prompts and images."""
    decode_efficiency: float = 0.5
    """Share of the memory bandwidth that an engine uses while it decodes."""
    overhead_gib: float = 3.0
    """Memory in GiB that CUDA, NCCL, libraries and fragmentation take on each GPU."""
    image: str = "1700x2200"
    """Size of a typical image, width x height in pixels (default: a scanned page)."""
    image_mb: float = 0.5
    """Megabytes of a typical image file."""
    image_ms: float = 120.0
    """Time of one CPU thread to decode a typical image and to prepare its low-resolution view, in
    milliseconds. A page of 1700x2200 takes 120 ms as PNG, and 65 ms as JPEG."""
    crop_ms: float = 25.0
    """Time of one CPU thread to prepare a typical crop of a decoded image, in milliseconds."""
    reward_ms: float = 15.0
    """Time of one CPU thread to compute the reward of an episode, in milliseconds. The sentence
    encoder takes 8 ms for an answer of one word, and 36 ms for one of 40 words."""
    call_rate: float = 0.29
    """Share of episodes that ask for a crop (paper, after SFT: 0.29)."""
    crop: str = "0"
    """The crop of a typical request. 0 to 3 are quarters, 4 is the center, 5 to 8 are halves, and
    "all" is the whole image."""
    question_tokens: int = 40
    """Text tokens of a typical question. The tokens of the chat format are included."""
    answer_tokens: int = 16
    """Sampled tokens of a typical assistant turn."""
    changed_share: float | None = None
    """Share of the trained weights that a step changes. With None the plan uses the share that a
    benchmark measured at the run's learning rate."""
    adapter_mbs: float = 195.0
    """Megabytes per second at which an engine adds an adapter. Generation pauses meanwhile. On a
    CPU, vLLM adds the rank 8 adapter of one 7B layer (1.4 MB) in 7.4 ms."""

    def check(self) -> None:
        """Raise ConfigError for a value that no run can have. The error names the option.

        The constructor does not check the values, because the command line would print an error of
        the constructor in another format.
        """
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, int | float) and not value >= 0:
                raise _wrong(field.name, value, "give a positive number")
        for name in _POSITIVE:
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise _wrong(name, value, "give a positive number")
        for name in (*_SHARES, "call_rate", "changed_share"):
            value = getattr(self, name)
            if value is not None and (value > 1 or (name in _SHARES and value == 0)):
                raise _wrong(name, value, "it is a share: give a number between 0 and 1")
        if not _SIZE.fullmatch(self.image):
            raise _wrong("image", self.image, "write width x height in pixels, such as 1700x2200")
        if self.crop not in {crop.value for crop in CropId}:
            raise _wrong("crop", self.crop, f"give one of {', '.join(CropId)}")

    @property
    def image_size(self) -> tuple[int, int]:
        """The width and the height of `image` in pixels."""
        width, _, height = self.image.partition("x")
        return int(width), int(height)

    @property
    def pools(self) -> bool:
        """True if the rollout engines have GPUs of another kind than the trainers."""
        return any(getattr(self, f"rollout_{name}") is not None for name in _GPU)

    def rollout(self) -> "Assumptions":
        """Return a copy of the assumptions that describes the GPUs of the rollout engines."""
        other = {name: getattr(self, f"rollout_{name}") for name in _GPU}
        return replace(self, **{name: value for name, value in other.items() if value is not None})


def _wrong(name: str, value: object, remedy: str) -> ConfigError:
    return ConfigError(f"--{name.replace('_', '-')} {value}: {remedy}")
