"""Checks before the engine starts, and the import_path that a RayService names."""

import socket

import pytest
from ray.serve._private.api import call_user_app_builder_with_args_if_necessary
from ray.serve.schema import ServeDeploySchema

from awares_platform.config.serve import ServeConfig
from awares_platform.serve.app import base_url, build, check_port, last_line
from awares_platform.store.errors import LaunchError


def test_a_taken_port_is_named():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        said = rf"port={port} on 127\.0\.0\.1 cannot be used: another process listens there"
        with pytest.raises(LaunchError, match=rf"serve\.{said}"):
            check_port("127.0.0.1", port)
    check_port("127.0.0.1", port)


def test_a_host_that_is_not_ours_is_named():
    with pytest.raises(LaunchError, match=r"on 203\.0\.113\.1 cannot be used"):
        check_port("203.0.113.1", 18080)


def test_import_path_takes_a_setups_sections_as_args():
    args = {"run": {"name": "prod"}, "serve": {"max_ongoing_requests": 2}}
    path = "awares_platform.serve.app:build"
    ServeDeploySchema.model_validate(
        {"applications": [{"name": "awares", "import_path": path, "args": args}]}
    )

    application = call_user_app_builder_with_args_if_necessary(build, args)
    assert application._bound_deployment.max_ongoing_requests == 2
    assert application._bound_deployment.init_args[0].run.name == "prod"


def test_import_path_refuses_unknown_args():
    with pytest.raises(ValueError, match="max_ongoing"):
        call_user_app_builder_with_args_if_necessary(build, {"serve": {"max_ongoing": 2}})


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("0.0.0.0", "http://127.0.0.1:80"),
        ("::", "http://[::1]:80"),
        ("10.1.2.3", "http://10.1.2.3:80"),
    ],
)
def test_base_url_is_one_that_a_client_can_use(host, url):
    assert base_url(ServeConfig(host=host, port=80)) == url


def test_last_line_is_what_happened():
    assert last_line("Traceback:\n  File x\nPolicyError: no policy\n\n") == "PolicyError: no policy"
    assert last_line("") == ""
