"""The section [serve]: the HTTP endpoint and its replicas."""

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from awares_platform.config.base import Section


class ServeConfig(Section):
    """Settings of the Ray Serve application with an OpenAI-style chat endpoint.

    The section holds no secret: `token_env` names the environment variable that holds the token.
    """

    policy: Literal["base", "sft", "awares"] = "awares"
    """Policy to serve: the base model, or a policy that the run has trained."""

    follow: bool = False
    """Load new weight versions of the run's GRPO while serving. `policy` must then equal
    grpo.start, because the published updates build on that policy."""

    model: str = Field(default="awares", min_length=1)
    """Name of the policy for clients. It is `model` in a request and `id` in /v1/models."""

    host: str = "127.0.0.1"
    """Address on which the proxies listen. 0.0.0.0 listens on every interface."""

    port: int = Field(default=8000, ge=1, le=65535)
    """Port on which the proxies listen."""

    token_env: str | None = None
    """Environment variable with the bearer token that clients must send. With "none", clients need
    no token."""

    keys_file: Path | None = None
    """JSON file with the names, hashes and limits of the API keys, often a mounted Secret. Replicas
    read it again when it changes. `awares keys` writes it."""

    image_hosts: tuple[str, ...] = ()
    """Host names from which a replica may fetch an image. An empty list refuses every remote URL.
    data: URLs always work."""

    fetch_timeout_s: float = Field(default=5.0, gt=0)
    """Time limit for fetching one remote image, in seconds."""

    max_request_bytes: int = Field(default=16 * 2**20, ge=1024, le=64 * 2**20)
    """Maximum size of a request body in bytes. It is also the maximum size of a remote image. A
    proxy reads the whole body before it passes the request on."""

    max_image_pixels: int = Field(default=64_000_000, ge=1)
    """Maximum size of an image in pixels. The replica reads the size from the header before it
    decodes the image."""

    max_pixels_in_flight: int = Field(default=160_000_000, ge=1)
    """Maximum number of pixels of all images that one replica holds at once. Further requests wait.
    A decoded pixel takes 4 bytes, and decoding takes several times as much for a moment."""

    max_question_chars: int = Field(default=4096, ge=1)
    """Maximum length of the texts of all messages of a request, in characters."""

    max_tokens: int = Field(default=64, ge=1)
    """Maximum number of sampled tokens per assistant turn. A client may ask for a shorter answer.
    If it asks for more, the endpoint uses this number and says so."""

    max_ongoing_requests: int = Field(default=16, ge=1)
    """Maximum number of concurrent requests in one replica. Each request has up to 8 answers."""

    max_queued_requests: int = Field(default=64, ge=1)
    """Maximum number of requests that wait in one proxy. Further requests get 503 with a
    Retry-After header."""

    retry_after_s: int = Field(default=1, ge=0)
    """Value of the Retry-After header of a refused request, in seconds."""

    autoscaling: dict[str, Any] = Field(default_factory=dict)
    """Ray Serve's autoscaling_config, such as min_replicas, max_replicas and
    target_ongoing_requests. An empty table keeps one replica."""

    replica_cpus: float = Field(default=1.0, ge=0)
    """CPUs that Ray reserves for one replica."""

    replica_gpus: float = Field(default=0.0, ge=0)
    """GPUs that Ray reserves for one replica."""

    start_timeout_s: float = Field(default=300.0, gt=0)
    """Time limit for the first replica to load the policy and pass a health check, in seconds. The
    time without a node for the replica does not count."""

    shutdown_timeout_s: float = Field(default=30.0, gt=0)
    """Time limit for a stopping replica to finish its requests, in seconds."""

    @model_validator(mode="after")
    def one_image_fits_a_replica(self) -> Self:
        """Refuse a limit on one image's pixels above the limit on all images of a replica."""
        if self.max_image_pixels > self.max_pixels_in_flight:
            raise ValueError(
                f"serve.max_image_pixels = {self.max_image_pixels} needs a "
                "serve.max_pixels_in_flight that is at least as large"
            )
        return self
