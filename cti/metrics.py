"""Figures for Prometheus, read when asked for. No personal data in any label; nothing is counted twice on the hot path."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

Value = float
Labelled = Mapping[str, Value]


@dataclass(frozen=True, slots=True)
class Gauge:
    """A value that goes up and down; with `label`, `read` gives one for each of its values."""

    name: str
    help: str
    read: Callable[[], Value | Labelled]
    label: str = ""
    counter: bool = False


class Figures(Collector):
    """Reads every gauge at each scrape; one that fails is left out."""

    def __init__(self, gauges: Iterable[Gauge]) -> None:
        self._gauges = tuple(gauges)

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        """The figures of this moment."""
        for gauge in self._gauges:
            family_class = CounterMetricFamily if gauge.counter else GaugeMetricFamily
            family = family_class(gauge.name, gauge.help, labels=[gauge.label] if gauge.label else [])
            try:
                value = gauge.read()
            except Exception:  # noqa: S112 - one figure that cannot be read must not hide the others
                continue
            if isinstance(value, Mapping):
                for label, labelled in value.items():
                    family.add_metric([label], labelled)
            else:
                family.add_metric([], value)
            yield family


def registry(gauges: Iterable[Gauge]) -> CollectorRegistry:
    """A registry with these figures."""
    found = CollectorRegistry(auto_describe=False)
    found.register(Figures(gauges))
    return found
