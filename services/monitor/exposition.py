"""The latest reports as Prometheus metrics; a series of what is no more reported ends."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from contracts import metric_names as names
from contracts.fairness import MEASURES

_HELP = {
    names.MONITOR_DISTANCE: "Distance of an input from its reference.",
    names.MONITOR_DRIFT: "1 where an input has changed: much, and not by chance.",
    names.MONITOR_MISSING: "Share of records without a value.",
    names.MONITOR_NEW_CATEGORY: "Share of records with a category that the reference lacks.",
    names.MONITOR_OUT_OF_RANGE: "Share of records with a number outside the reference's range.",
    names.MONITOR_SKEW: "Share of logged rows whose input differs from the same features joined from the history.",
    names.MONITOR_ROWS: "Records read from the prediction log.",
    names.MONITOR_LATE_ROWS: "Records that came after the watermark had passed their time.",
    names.MONITOR_QUALITY: "Quality of labelled answers.",
    names.MONITOR_QUALITY_LOW: "Lower end of the quality's interval.",
    names.MONITOR_QUALITY_HIGH: "Upper end of the quality's interval.",
    names.MONITOR_QUALITY_REFERENCE: "The same in the bundle's evaluation.",
    names.MONITOR_QUALITY_DROPPED: "1 where the whole interval is worse than the bundle's value.",
    names.MONITOR_GROUP_ROWS: "Predictions of a group, and those of them with labels.",
    names.MONITOR_GROUP_RATE: "Rates of a group that has enough rows to be judged.",
    names.MONITOR_FAIRNESS: "How far the groups of a column are apart; selection_ratio is lowest over highest.",
    names.MONITOR_FAIRNESS_LIMIT: "The gate's limit on the same.",
    names.MONITOR_FAIRNESS_BROKEN: "1 where the whole interval is beyond the gate's limit.",
    names.MONITOR_LABELS_JOINED: "Labels read, by what became of them.",
    names.MONITOR_LAST_PASS: "When the log was read last.",
}
_ERRORS = ("tpr", "fpr", "calibration")


class Reports(Collector):
    """Collects the metrics of all models; replace a model's report by `put`."""

    def __init__(self) -> None:
        self._reports: dict[str, tuple[Mapping[str, Any], float]] = {}

    def put(self, model: str, report: Mapping[str, Any], at: float) -> None:
        """The report of a pass that ended at this moment."""
        self._reports[model] = report, at

    def drop(self, model: str) -> None:
        """End the series of a model that another monitor watches."""
        self._reports.pop(model, None)

    def collect(self) -> Iterable[Metric]:
        """The families, each with all models."""
        families = {name: _family(name) for name in _HELP}

        def say(name: str, value: float, *labels: str) -> None:
            families[name].add_metric(labels, value)

        for model, (report, at) in list(self._reports.items()):
            say(names.MONITOR_LAST_PASS, at, model)
            versions = report["versions"]
            say(names.MONITOR_LATE_ROWS, sum(one["late"] for one in versions.values()), model)
            for outcome, count in report["labels"].items():
                say(names.MONITOR_LABELS_JOINED, count, model, outcome)
            for version, one in versions.items():
                _say_quality(say, one["quality"], model, version)
                _say_groups(say, one["groups"], model, version)
                for column, ratio in one["skew"].items():
                    say(names.MONITOR_SKEW, ratio, model, version, column)
                say(names.MONITOR_ROWS, one["rows"], model, version)
                for column, found in one["inputs"].items():
                    say(names.MONITOR_DRIFT, float(found["drifted"]), model, version, column)
                    if not one["quiet"] and found["rows"]:
                        _say_shares(say, found, model, version, column)
        return families.values()


def _say_quality(say: Any, quality: Iterable[Mapping[str, Any]], model: str, version: str) -> None:
    for one in quality:
        labels = model, version, one["metric"], one["slice"]
        say(names.MONITOR_QUALITY, one["value"], *labels)
        say(names.MONITOR_QUALITY_LOW, one["low"], *labels)
        say(names.MONITOR_QUALITY_HIGH, one["high"], *labels)
        if one["reference"] is not None:
            say(names.MONITOR_QUALITY_DROPPED, float(one["dropped"]), *labels)
            if not one["slice"]:
                say(names.MONITOR_QUALITY_REFERENCE, one["reference"], *labels[:3])


def _say_groups(say: Any, found: Mapping[str, Any], *labels: str) -> None:
    """Of a group with too few rows nothing but how many."""
    for column, one in found.get("columns", {}).items():
        for group in one["groups"]:
            named = *labels, column, group["name"]
            say(names.MONITOR_GROUP_ROWS, group["rows"], *named, "predictions")
            say(names.MONITOR_GROUP_ROWS, group["labelled"], *named, "labels")
            judged = {"selection": group["judged"], **dict.fromkeys(_ERRORS, group["errors_judged"])}
            for rate in (rate for rate, enough in judged.items() if enough):
                if group[rate]["value"] is not None:
                    say(names.MONITOR_GROUP_RATE, group[rate]["value"], *named, rate)
        for measure in MEASURES:
            if one[measure] is not None:
                say(names.MONITOR_FAIRNESS, one[measure], *labels, column, measure)
    for check in found.get("checks", ()):
        column, _, measure = check["metric"].rpartition(":")
        say(names.MONITOR_FAIRNESS_LIMIT, check["limit"], *labels, column, measure)
        if check["value"] is not None:
            say(names.MONITOR_FAIRNESS_BROKEN, float(check["sure"]), *labels, column, measure)


def _say_shares(say: Any, found: Mapping[str, Any], *labels: str) -> None:
    say(names.MONITOR_DISTANCE, found["psi"], *labels, "psi")
    say(names.MONITOR_DISTANCE, found["js"], *labels, "js")
    say(names.MONITOR_MISSING, found["missing"] + found["absent"], *labels)
    foreign = names.MONITOR_NEW_CATEGORY if found["kind"] == "category" else names.MONITOR_OUT_OF_RANGE
    say(foreign, found["new_or_out_of_range"], *labels)


def _family(name: str) -> Any:
    kind = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
    return kind(name.removesuffix("_total"), _HELP[name], labels=names.MONITOR_LABELS[name])
