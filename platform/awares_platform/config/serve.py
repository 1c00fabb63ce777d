"""[serve]: the HTTP endpoint and its replicas."""

from typing import Any, Literal

from pydantic import Field

from awares_platform.config.base import Section


class ServeConfig(Section):
    """Ray Serve application with an OpenAI-style chat endpoint.

    The section holds no secret: `token_env` names the variable that holds the token.
    """

    policy: Literal["base", "sft", "awares"] = "awares"
    """Which policy of the run to serve."""

    follow: bool = False
    """Load every version that the run's GRPO publishes, while serving. `policy` must then equal
    grpo.start, the policy that the published updates build on."""

    model: str = Field(default="awares", min_length=1)
    """Name of the policy for clients: `model` in a request, `id` in /v1/models."""

    host: str = "127.0.0.1"
    """Address on which the proxies listen; 0.0.0.0 takes every interface."""

    port: int = Field(default=8000, ge=1, le=65535)
    """Port on which the proxies listen."""

    token_env: str | None = None
    """Environment variable with the bearer token that clients must send; None asks for no token."""

    image_hosts: tuple[str, ...] = ()
    """Host names from which an image may be fetched. Empty refuses every remote URL; data: URLs
    always work."""

    fetch_timeout_s: float = Field(default=5.0, gt=0)
    """Time limit for fetching one remote image, in seconds."""

    max_request_bytes: int = Field(default=16 * 2**20, ge=1024)
    """Largest request body, and largest remote image, in bytes."""

    max_image_pixels: int = Field(default=64_000_000, ge=1)
    """Largest image, in pixels. The header is checked before the image is decoded."""

    max_question_chars: int = Field(default=4096, ge=1)
    """Longest question, in characters."""

    max_tokens: int = Field(default=64, ge=1)
    """Most tokens that one assistant turn may sample; a request may ask for fewer."""

    max_ongoing_requests: int = Field(default=16, ge=1)
    """Episodes in flight in one replica."""

    max_queued_requests: int = Field(default=64, ge=1)
    """Requests that may wait in one proxy; further ones get 503 with a Retry-After header."""

    retry_after_s: int = Field(default=1, ge=0)
    """Retry-After of a refused request, in seconds."""

    autoscaling: dict[str, Any] = Field(default_factory=dict)
    """Ray Serve's autoscaling_config: min_replicas, max_replicas, target_ongoing_requests, ...
    Empty keeps one replica."""

    replica_cpus: float = Field(default=1.0, ge=0)
    """CPUs that Ray reserves for one replica."""

    replica_gpus: float = Field(default=0.0, ge=0)
    """GPUs that Ray reserves for one replica."""

    start_timeout_s: float = Field(default=300.0, gt=0)
    """Time limit for the first replica to load the policy and pass a health check, in seconds."""

    shutdown_timeout_s: float = Field(default=30.0, gt=0)
    """Time that a stopping replica has to finish its requests, in seconds."""
