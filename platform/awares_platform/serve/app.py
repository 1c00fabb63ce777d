"""The Serve application that a RayService imports."""

from ray.serve import Application

from awares_platform.config import PlatformConfig
from awares_platform.serve.deployment import build_application


def build(config: PlatformConfig) -> Application:
    """Build the Serve application. The serveConfigV2 of a RayService refers to this function.

    Ray Serve parses the `args` of serveConfigV2 into `config`.

    Example:
        {
            "name": "awares",
            "import_path": "awares_platform.serve.app:build",
            "args": {"run": {"name": "mini"}, "serve": {"port": 80}},
        }
    """
    return build_application(config)
