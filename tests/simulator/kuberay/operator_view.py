"""What the operator refuses although the API server took it: the rules ported for the static checks, applied to stored objects."""

from tests.simulator.api.objects import Body
from tests.unit.helm.operator_rules import faults


class OperatorView:
    """Remembers its verdicts: an object is looked at anew when its generation changes."""

    def __init__(self) -> None:
        self._verdicts: dict[tuple[str, int], str] = {}

    def refusal(self, body: Body) -> str:
        """Why the operator would not touch the object; empty where it would."""
        key = body["metadata"]["uid"], body["metadata"]["generation"]
        if key not in self._verdicts:
            self._verdicts[key] = "; ".join(faults(body))
        return self._verdicts[key]
