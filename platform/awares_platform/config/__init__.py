"""Configuration: frozen sections, read from one TOML file and dotted overrides.

This package imports no heavy library such as torch, ray or boto3.
"""

from awares_platform.config.base import Section
from awares_platform.config.setup import PlatformConfig, load

__all__ = ["PlatformConfig", "Section", "load"]
