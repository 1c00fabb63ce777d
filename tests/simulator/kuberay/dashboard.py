"""Sends requests to a Ray head's dashboard: to the Jobs API, Serve's REST API and the node list."""

import contextlib
import http.client
import json
from dataclasses import dataclass, field
from typing import Any

_LIMIT_S = 30.0


class Unanswered(Exception):
    """The dashboard is unreachable or refuses the request. The message contains the reason."""


@dataclass(frozen=True, slots=True)
class Dashboard:
    """A client for one head's dashboard. `token` is None if the cluster uses no authentication.

    Example:
        Dashboard("127.80.3.4", 8265, "secret").nodes()
    """

    host: str
    port: int
    token: str | None = field(repr=False)

    def up(self) -> bool:
        """Return whether the dashboard answers and accepts the token."""
        with contextlib.suppress(Unanswered):
            return bool(self._ask("GET", "/api/version"))
        return False

    def nodes(self) -> int:
        """Return the number of live nodes, or 0 if the dashboard does not answer."""
        with contextlib.suppress(Unanswered):
            rows = self._ask("GET", "/nodes?view=summary")["data"]["summary"]
            return sum(row["raylet"].get("state") == "ALIVE" for row in rows)
        return 0

    def submit(self, body: dict[str, Any]) -> None:
        """Submit a job. Raises Unanswered."""
        self._ask("POST", "/api/jobs/", body)

    def job(self, submission: str) -> dict[str, Any]:
        """Return a job's details, such as its status and message. Raises Unanswered."""
        return self._ask("GET", f"/api/jobs/{submission}")

    def stop_job(self, submission: str) -> None:
        """Request that a job stops. Raises Unanswered."""
        self._ask("POST", f"/api/jobs/{submission}/stop")

    def job_log(self, submission: str) -> str:
        """Return the log of a job's driver. Raises Unanswered."""
        return self._ask("GET", f"/api/jobs/{submission}/logs")["logs"]

    def deploy(self, config: dict[str, Any]) -> None:
        """Deploy Serve applications.

        Raises Unanswered with Serve's message if Serve refuses `config`.
        """
        self._ask("PUT", "/api/serve/applications/", config)

    def applications(self) -> dict[str, Any]:
        """Return a map from names of Serve applications to their details. Raises Unanswered."""
        return self._ask("GET", "/api/serve/applications/").get("applications", {})

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        headers = {"content-type": "application/json"}
        if self.token is not None:
            headers["authorization"] = f"Bearer {self.token}"
        connection = http.client.HTTPConnection(self.host, self.port, timeout=_LIMIT_S)
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            text = response.read().decode("utf-8", "replace")
        except (OSError, http.client.HTTPException) as error:
            raise Unanswered(f"{method} {path}: {type(error).__name__}: {error}") from error
        finally:
            connection.close()
        if response.status >= 300:
            raise Unanswered(f"{method} {path}: {response.status} {text[:2000]}")
        return json.loads(text) if text else {}
