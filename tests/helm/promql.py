"""Which metrics and labels an expression of Prometheus names, and which there are."""

from __future__ import annotations

import re
from collections.abc import Iterable

from contracts import metric_names

# Those of other programs that rules and dashboards use: Prometheus, Alertmanager, kubelets, and every Python process.
FOREIGN = {
    "up",
    "process_resident_memory_bytes",
    "process_cpu_seconds_total",
    "prometheus_rule_evaluation_failures_total",
    "prometheus_tsdb_head_series",
    "prometheus_tsdb_storage_blocks_bytes",
    "prometheus_tsdb_retention_limit_bytes",
    "prometheus_notifications_errors_total",
    "alertmanager_notifications_failed_total",
    "kubelet_volume_stats_available_bytes",
    "kubelet_volume_stats_capacity_bytes",
    "certmanager_certificate_expiration_timestamp_seconds",
    "probe_ssl_earliest_cert_expiry",
    "ALERTS",
}
# What a scrape adds to every series.
TARGET = {"job", "instance", "namespace", "pod", "release", "component"}
_WORDS = {
    "and",
    "or",
    "unless",
    "by",
    "without",
    "on",
    "ignoring",
    "group_left",
    "group_right",
    "offset",
    "bool",
    "inf",
}
_TEXT = r'"(?:\\.|[^"\\])*"'
_GROUPING = r"\b(by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)"


def metrics(expression: str) -> dict[str, set[str]]:
    """Names of metrics in `expression`, and the labels that their selectors compare."""
    plain = re.sub(_TEXT, '""', expression)
    plain = re.sub(_GROUPING, " ", plain)
    plain = re.sub(r"\[[^\]]*\]|\boffset\s+\w+", " ", plain)
    found: dict[str, set[str]] = {}
    for name, labels in re.findall(r"(?<![\w:.$])([A-Za-z_][\w:]*)\b(?!\s*\()\s*(\{[^}]*\})?", plain):
        if name not in _WORDS:
            found.setdefault(name, set()).update(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", labels))
    return found


def grouped(expression: str) -> set[str]:
    """Labels that `expression` groups and joins by."""
    plain = re.sub(_TEXT, '""', expression)
    return {label.strip() for _, labels in re.findall(_GROUPING, plain) for label in labels.split(",") if label.strip()}


def labels_of(name: str) -> set[str] | None:
    """Labels of a metric that something of ours exports; None for a name that nothing has."""
    base = next((base for end in ("", "_bucket", "_sum", "_count")
                 if (base := name.removesuffix(end)) in metric_names.EXPORTED), None)  # fmt: skip
    if base is None:
        return None
    return {*metric_names.EXPORTED[base], *TARGET} | ({"le"} if name.endswith("_bucket") else set())


def complaints(expressions: Iterable[str], recorded: Iterable[str]) -> list[str]:
    """What is wrong with `expressions`: metrics that nothing exports or records, and labels that they do not have."""
    known, wrong = {*recorded, *FOREIGN}, []
    for expression in expressions:
        carried: set[str] = set()
        free = False
        for name, compared in metrics(expression).items():
            labels = labels_of(name)
            if labels is None:
                free = True
                wrong += [] if name in known else [f"{name}: nothing exports or records it"]
                continue
            carried |= labels
            wrong += [f"{name}: has no label {label}" for label in sorted(compared - labels)]
        if not free:
            wrong += [f"{label}: no metric of {expression} has it" for label in sorted(grouped(expression) - carried)]
    return wrong
