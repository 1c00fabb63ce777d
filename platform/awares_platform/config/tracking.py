"""The section [tracking]: services that show a run's metrics and samples while it trains."""

from pydantic import Field

from awares_platform.config.base import Section


class TrackingConfig(Section):
    """Trackers of a run, beside metrics.jsonl and TensorBoard.

    A resumed job continues the curves of its run. A tracker that fails or is slow never stops a
    run.
    """

    wandb: bool = False
    """Send metrics and samples to Weights & Biases. Its own environment variables, such as
    WANDB_API_KEY and WANDB_MODE, hold the rest. Needs `pip install awares-train[wandb]`."""
    mlflow: str = ""
    """Send metrics and samples to MLflow at this address: the URL of a server, or a local
    directory. "" turns it off. Needs `pip install awares-train[mlflow]`."""
    project: str = Field(default="awares-train", min_length=1)
    """Name of the project in Weights & Biases, and of the experiment in MLflow."""
    samples: int = Field(default=8, ge=0)
    """Number of episodes in each table of samples. 0 writes no tables."""
    samples_every: int = Field(default=20, ge=1)
    """Number of GRPO steps between two tables of samples."""
