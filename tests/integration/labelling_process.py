"""Labels one shard in a process that a test kills.

A judge model compares answers, and a grounding model locates the evidence in images.
"""

import json
import sys

import numpy as np

from awares.sample import Sample
from awares_platform.config import PlatformConfig
from awares_platform.curate.label_shard import label_shard
from awares_platform.data.rows import encode_rows


def main() -> None:
    """Label `count` samples that share an image, and print the result as JSON.

    The arguments are the configuration as JSON, `count`, and the image's hash.
    """
    setup, count, image = sys.argv[1:]
    config = PlatformConfig.model_validate_json(setup)
    samples = [Sample(f"s{index}", image, f"question {index}", "7") for index in range(int(count))]
    texts = [["1"] * len(samples), ["7"] * len(samples), [""] * len(samples)]
    columns = dict(zip(("low_answer", "full_answer", "fault"), texts, strict=True))
    rows = encode_rows(samples, columns | {"confidence": [0.5] * len(samples)})
    values = {"key": "shard", "fingerprint": "ab12", "rows": rows, "failure": b""}
    batch = {name: np.array([value], dtype=object) for name, value in values.items()}
    found = label_shard(batch, config)
    print(json.dumps({name: str(value[0]) for name, value in found.items()}))


if __name__ == "__main__":
    main()
