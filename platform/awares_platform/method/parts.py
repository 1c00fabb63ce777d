"""Checks the parts that a job uses, such as the reward, before the job starts anything else."""

from awares_platform.config import PlatformConfig
from awares_platform.method.environment import environment
from awares_platform.method.family import model_family
from awares_platform.method.grounding import check_grounding
from awares_platform.method.judge import check_judge
from awares_platform.method.reward import check_reward

REWARDING = frozenset({"quickstart", "grpo", "evaluate", "doctor"})
"""The commands that need the reward. "doctor" checks a setup on behalf of the jobs."""
LABELLING = frozenset({"quickstart", "curate", "evaluate"})
"""The jobs that ask the judge and the grounding.

"doctor" is not one of them, because it does not stop at a faulty judge or grounding. It reports the
fault as a finding.
"""


def check_parts(job: str, config: PlatformConfig) -> None:
    """Import the configured parts that `job` uses, and check their settings.

    Parts of other jobs are not imported, because this machine may lack them.

    Raises ConfigError if a part cannot be imported or does not take its settings.

    Example:
        check_parts("grpo", config)
    """
    environment(config.method)
    model_family(config.policy)
    if job in REWARDING:
        check_reward(config.method)
    if job in LABELLING:
        check_judge(config.curate)
        check_grounding(config.curate)
