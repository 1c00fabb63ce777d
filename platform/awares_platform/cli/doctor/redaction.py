"""Removes secrets from the texts of findings."""

import os
import re
from dataclasses import replace

from awares_platform.cli.doctor.finding import Finding

HIDDEN = "***"
_NAMES = re.compile(r"KEY|SECRET|TOKEN|PASSWORD|PASSWD|CREDENTIAL", re.IGNORECASE)
_SHORTEST = 6
"""Minimum length of a hidden value. A shorter value may be an ordinary word."""
_USER = re.compile(r"(?<=://)[^/\s@]+@")
_BEARER = re.compile(r"(?<=Bearer )\S+")


def redacted(finding: Finding) -> Finding:
    """Return the finding without secrets in its texts.

    Secrets are bearer tokens, passwords in URLs, and long values of environment variables with
    names such as *KEY or *TOKEN.
    """
    return replace(finding, found=hidden(finding.found), remedy=hidden(finding.remedy))


def hidden(text: str) -> str:
    """Replace each secret in `text` by three asterisks."""
    secrets = [
        value
        for name, value in os.environ.items()
        if _NAMES.search(name) and len(value) >= _SHORTEST and not os.path.exists(value)
    ]
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return _BEARER.sub(HIDDEN, _USER.sub(f"{HIDDEN}@", text))
