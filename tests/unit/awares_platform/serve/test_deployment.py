"""Tests the deployment options of the [serve] section, and which options are refused."""

import pytest

from awares.errors import ConfigError
from awares_platform.config import PlatformConfig
from awares_platform.config.serve import ServeConfig
from awares_platform.serve.deployment import autoscaling, build_application, read_token


def _deployment(**fields):
    application = build_application(PlatformConfig.model_validate({"serve": fields}))
    return application._bound_deployment


def test_options_reach_the_deployment():
    deployment = _deployment(
        max_ongoing_requests=3,
        max_queued_requests=5,
        retry_after_s=7,
        replica_cpus=2,
        shutdown_timeout_s=9,
    )
    assert (
        deployment.max_ongoing_requests,
        deployment.max_queued_requests,
        deployment.num_replicas,
    ) == (3, 5, 1)
    assert (
        deployment.backpressure_config.status_code,
        deployment.backpressure_config.retry_after_s,
    ) == (503, 7)
    assert deployment.ray_actor_options["num_cpus"] == 2
    assert deployment._deployment_config.graceful_shutdown_timeout_s == 9


def test_autoscaling_replaces_the_fixed_replica():
    scaling = _deployment(
        autoscaling={"min_replicas": 1, "max_replicas": 4, "target_ongoing_requests": 8}
    )._deployment_config.autoscaling_config
    assert (scaling.min_replicas, scaling.max_replicas, scaling.target_ongoing_requests) == (
        1,
        4,
        8,
    )
    assert autoscaling({}) is None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"max_replica": 4},
            r"serve\.autoscaling\.max_replica: no such key; the nearest is max_replicas",
        ),
        (
            {"min_replicas": 5, "max_replicas": 2},
            r"serve\.autoscaling: max_replicas \(2\) must be greater",
        ),
        (
            {"max_replicas": "many"},
            r"serve\.autoscaling\.max_replicas: Input should be a valid integer",
        ),
    ],
)
def test_wrong_autoscaling_is_named(options, words):
    with pytest.raises(ConfigError, match=words):
        build_application(PlatformConfig.model_validate({"serve": {"autoscaling": options}}))


def test_the_token_comes_from_the_named_variable(monkeypatch):
    monkeypatch.setenv("TEST_AWARES_TOKEN", " secret\n")
    assert read_token(ServeConfig(token_env="TEST_AWARES_TOKEN")) == "secret"
    assert read_token(ServeConfig()) is None
    monkeypatch.setenv("TEST_AWARES_TOKEN", "")
    with pytest.raises(ConfigError, match="TEST_AWARES_TOKEN, which is unset or empty"):
        read_token(ServeConfig(token_env="TEST_AWARES_TOKEN"))


def test_a_follower_starts_from_what_the_weights_build_on() -> None:
    with pytest.raises(ConfigError, match=r"serve\.policy=sft \(grpo\.start\), not awares"):
        build_application(PlatformConfig.model_validate({"serve": {"follow": True}}))
    assert build_application(
        PlatformConfig.model_validate({"serve": {"follow": True, "policy": "sft"}})
    )
