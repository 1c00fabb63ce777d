import pytest

from awares.errors import ConfigError
from awares_platform.config import load
from awares_platform.method.parts import check_parts

USED = {
    "curate": {"method.environment", "policy.family", "curate.judge", "curate.grounding"},
    "sft": {"method.environment", "policy.family"},
    "grpo": {"method.environment", "policy.family", "method.reward"},
    "doctor": {"method.environment", "policy.family", "method.reward"},
    "serve": {"method.environment", "policy.family"},
}
EVERY = {"method.environment", "policy.family", "method.reward", "curate.judge", "curate.grounding"}
USED |= {"evaluate": EVERY, "quickstart": EVERY}


@pytest.mark.parametrize("job", USED)
def test_a_job_refuses_exactly_the_faulty_parts_that_it_uses(job: str) -> None:
    refused = set()
    for key in EVERY:
        config = load("mini", [f"{key}=nowhere:Part"])
        try:
            check_parts(job, config)
        except ConfigError as error:
            assert str(error).startswith(f"{key} = 'nowhere:Part': nowhere cannot be imported")
            refused.add(key)
    assert refused == USED[job]


def test_settings_that_a_part_does_not_take_are_refused() -> None:
    config = load("mini", ["method.reward_settings={typo=1}"])
    with pytest.raises(ConfigError, match=r"method\.reward_settings\.typo: "):
        check_parts("grpo", config)
    check_parts("sft", config)
