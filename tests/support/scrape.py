"""Reading a page of metrics as Prometheus would."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client.parser import text_string_to_metric_families

from promptpipe.services.observations import Observation

if TYPE_CHECKING:
    from promptpipe.metrics import PrometheusMetrics

NOTHING = Observation()


def scraped(page: bytes) -> dict[str, float]:
    """Return the values on a page by name and labels, such as `jobs_ended_total{done,work}`; our prefix is left out."""
    values: dict[str, float] = {}
    for family in text_string_to_metric_families(page.decode()):
        assert family.documentation
        for sample in family.samples:
            labels = ",".join(value for _, value in sorted(sample.labels.items()))
            name = sample.name.removeprefix("promptpipe_")
            full = f"{name}{{{labels}}}" if labels else name
            assert full not in values
            values[full] = sample.value
    return values


def counted(metrics: PrometheusMetrics, observation: Observation = NOTHING) -> dict[str, float]:
    """Return what *metrics* has on its page, without zeros."""
    return {name: value for name, value in scraped(metrics.page(observation, ready=True)).items() if value}
