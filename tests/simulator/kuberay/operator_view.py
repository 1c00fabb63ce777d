"""The operator's own refusals of objects that the API server accepted.

It applies the rules that tests/unit/helm ports for the static checks.
"""

from tests.simulator.api.objects import Body
from tests.unit.helm.operator_rules import faults


class OperatorView:
    """Checks an object once per generation and remembers the verdict."""

    def __init__(self) -> None:
        self._verdicts: dict[tuple[str, int], str] = {}

    def refusal(self, body: Body) -> str:
        """Why the operator refuses the object; empty if it does not."""
        key = body["metadata"]["uid"], body["metadata"]["generation"]
        if key not in self._verdicts:
            self._verdicts[key] = "; ".join(faults(body))
        return self._verdicts[key]
