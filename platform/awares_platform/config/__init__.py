"""Configuration: frozen sections, one TOML per setup, dotted overrides. Imports no torch, ray or boto3."""

from awares_platform.config.base import Section
from awares_platform.config.setup import PlatformConfig, load

__all__ = ["PlatformConfig", "Section", "load"]
