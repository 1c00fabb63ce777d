"""Computes how busy the rollout engines are, from the usage that the actors report."""

from statistics import fmean

from awares_platform.engine.usage import EngineUsage


class EngineMetrics:
    """Compares each engine's newest report with the engine's last report before the present step.

    An actor reports its engine's usage with each group that it returns.
    """

    def __init__(self) -> None:
        self._before: dict[str, EngineUsage] = {}
        self._newest: dict[str, EngineUsage] = {}

    def used(self, usage: EngineUsage) -> None:
        """Record the usage of an engine. Reports may arrive in any order."""
        self._before.setdefault(usage.engine, usage)
        held = self._newest.get(usage.engine)
        if held is None or held.at < usage.at:
            self._newest[usage.engine] = usage

    def step(self) -> dict[str, float]:
        """Return the metrics of the engines that have reported since the last call, or {}.

        The tokens per second are sums over the engines. The other metrics are means over time and
        engines.
        """
        pairs = [(self._before[name], usage) for name, usage in self._newest.items()]
        spans = [(first, last, last.at - first.at) for first, last in pairs if last.at > first.at]
        self._before, self._newest = {**self._before, **self._newest}, {}
        if not spans:
            return {}
        return {
            "engine/busy": fmean((b.busy_s - a.busy_s) / span for a, b, span in spans),
            "engine/in_flight": fmean((b.request_s - a.request_s) / span for a, b, span in spans),
            "engine/tokens_per_s": sum((b.sampled - a.sampled) / span for a, b, span in spans),
            "engine/prompt_tokens_per_s": sum(
                (b.prompted - a.prompted) / span for a, b, span in spans
            ),
        }
