"""Says why a row is refused."""

from awares.errors import DataError


class Refused(DataError):
    """Raised if a row cannot become a sample.

    `reason` is short and the same for all rows with this fault. `detail` describes the one row.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail
