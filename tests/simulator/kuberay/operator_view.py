"""Finds the objects that the API server accepts but the KubeRay operator refuses.

The rules are in tests/unit/helm/operator_rules.py. The unit tests of the chart use the same rules.
"""

from tests.simulator.api.objects import Body
from tests.unit.helm.operator_rules import faults


class OperatorView:
    """Checks each version (metadata.generation) of an object once, and remembers the result."""

    def __init__(self) -> None:
        self._verdicts: dict[tuple[str, int], str] = {}

    def refusal(self, body: Body) -> str:
        """Return why the operator refuses the object, or "" if the operator accepts it."""
        key = body["metadata"]["uid"], body["metadata"]["generation"]
        if key not in self._verdicts:
            self._verdicts[key] = "; ".join(faults(body))
        return self._verdicts[key]
