"""Holds the lease of a grpo job, which keeps a second job from starting, until a signal arrives.

Usage: `python lease_holding_process.py <store settings as JSON> <key> <beat_s> <expiry_s>`

The lease is renewed every <beat_s> seconds, and expires after <expiry_s> seconds without renewal.
"""

import sys
import time

from awares_platform.cli.main import guarded
from awares_platform.config import PlatformConfig
from awares_platform.config.store import StoreConfig
from awares_platform.runtime.job_lease import hold
from awares_platform.runtime.session import store_session
from awares_platform.store import ObjectStore

HELD = "held"


def work() -> None:
    settings, key, beat_s, expiry_s = sys.argv[1:]
    store = StoreConfig.model_validate_json(settings)
    with (
        store_session(PlatformConfig(store=store)),
        hold(
            ObjectStore(store), key, "grpo", beat_s=float(beat_s), expiry_s=float(expiry_s)
        ) as claim,
    ):
        print(HELD, claim.token, flush=True)
        while True:
            time.sleep(60)


if __name__ == "__main__":
    sys.exit(guarded("grpo", work))
