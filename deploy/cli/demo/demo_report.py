"""What a demo has to show: quality, latency, and where to look."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from deploy.cli.serving.http_requests import Answer, quantile
from deploy.cli.terminal.output import number, table

if TYPE_CHECKING:
    from rich.console import Console

    from contracts.bundle import Bundle

_SHOWN = ("average_precision", "roc_auc", "precision", "recall", "brier", "ece")


def summarise(bundle: Bundle, answers: list[Answer], connections: int) -> dict[str, Any]:
    """Quality on the test split, and what the endpoint did with the requests (times in milliseconds)."""
    evaluation = bundle.read_json("evaluation.json")
    decision = bundle.document.decision
    positive = decision.positive if decision else ""
    labels: dict[str, int] = evaluation["labels"]
    times = [answer.milliseconds for answer in answers]
    predicted = [one["label"] for answer in answers for one in answer.body["predictions"]]
    flagged = sum(bool(one["flags"]) for answer in answers for one in answer.body["predictions"])
    return {
        "quality": {
            "rows": evaluation["rows"],
            "prevalence": labels.get(positive, 0) / max(1, sum(labels.values())),
            "metrics": {name: evaluation["metrics"][name] for name in _SHOWN if name in evaluation["metrics"]},
            "intervals": {name: evaluation["intervals"].get(name) for name in _SHOWN},
        },
        "requests": {
            "sent": len(answers),
            "connections": connections,
            "answered": sum(answer.status == 200 for answer in answers),
            "alerts": predicted.count(positive),
            "flagged": flagged,
        },
        "latency_ms": {f"p{share}": round(quantile(times, share / 100), 2) for share in (50, 95, 99)},
    }


def show_demo(out: Console, document: dict[str, Any], body: dict[str, Any]) -> None:
    """The tables, and every address that a person may want next."""
    quality, requests, latency = document["quality"], document["requests"], document["latency_ms"]
    rows = table("quality", "value", "95 % interval", "", right=("value",))
    for name, value in quality["metrics"].items():
        rows.add_row(name, number(value), _interval(quality["intervals"].get(name)), _remark(name, quality))
    out.print(f"\n[bold]Quality[/] on {quality['rows']} held-out payments, {quality['prevalence']:.2%} of them fraud")
    out.print(rows)
    endpoint = document["endpoint"]
    out.print(
        f"[bold]Requests[/]  {requests['answered']} of {requests['sent']} answered, {requests['alerts']} alerts, "
        f"{requests['flagged']} flagged"
    )
    out.print(
        f"[bold]Latency[/]   p50 {latency['p50']} ms, p95 {latency['p95']} ms, p99 {latency['p99']} ms "
        f"over {requests['connections']} connections"
    )
    out.print(f"\n[bold]Look[/]      {endpoint['model']}:{endpoint['version']} on {endpoint['url']}")
    line = f"curl -s {endpoint['predict_url']} -H 'content-type: application/json' -d '{json.dumps(body)}'"
    out.print(f"Try       {line}", soft_wrap=True, markup=False)
    out.print(f"Docs      {endpoint['docs_url']}")
    out.print(f"Metrics   {endpoint['metrics_url']}")
    out.print(f"MLflow    {document['mlflow_url']}  (start the page: fairlead ui)", soft_wrap=True)
    out.print(f"Card      {document['model_card']}", soft_wrap=True)
    out.print(f"Took      {document['seconds']} s")


def _interval(interval: Any) -> str:
    return f"{interval[0]:.4f} to {interval[1]:.4f}" if interval else "-"


def _remark(name: str, quality: dict[str, Any]) -> str:
    prevalence = quality["prevalence"]
    if name == "average_precision" and prevalence > 0:
        return f"{quality['metrics'][name] / prevalence:.0f} times a random ranking ({prevalence:.4f})"
    return {"roc_auc": "0.5 is random", "ece": "calibration error", "brier": "squared error"}.get(name, "")
