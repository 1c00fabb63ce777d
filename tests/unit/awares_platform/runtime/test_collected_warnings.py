import logging

from awares_platform.runtime.collected_warnings import CollectedWarnings, Sign
from awares_platform.runtime.logs import OURS


def test_the_warnings_of_the_project_are_taken_once_and_in_order() -> None:
    warnings = CollectedWarnings.collect()
    try:
        logging.getLogger("awares_platform.grpo.fleet").warning("actor %d is gone", 1)
        logging.getLogger("awares.reward").error("wrong")
        logging.getLogger("awares_platform.grpo.fleet").info("news")
        logging.getLogger("ray.data").warning("foreign")
        assert warnings.take() == ("actor 1 is gone", "wrong")
        assert warnings.take() == ()
    finally:
        for name in OURS:
            logging.getLogger(name).removeHandler(warnings)


def test_a_sign_tells_each_warning() -> None:
    said: list[str] = []
    Sign(0, ("one", "two")).tell(said.append)
    assert said == ["one", "two"]
