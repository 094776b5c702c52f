"""Settings of the monitor; every key is an environment variable ``FAIRLEAD_MONITOR_<KEY>``."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from contracts.settings import Settings
from services.monitor.rules import Rules

PREFIX = "FAIRLEAD_MONITOR_"


class MonitorSettings(Settings):
    """Which logs are read, where bundles are, and where metrics are served."""

    # Kubernetes gives these to every pod beside a Service that is called "fairlead-monitor".
    foreign_environment: ClassVar[frozenset[str]] = frozenset(
        {"service_host", "service_port", "service_port_metrics", "port_metrics"}
    )

    predictions: str = Field("", description="folder or s3:// of the prediction log; reports are kept beside it")
    artifacts: str = Field("", description="folder or s3:// of published bundles, whose baselines are the reference")
    groups: str = Field(
        "",
        description="folder or s3:// of <model>.parquet or .csv: who is of which group; read, never kept; empty: none",
    )
    groups_key: str = Field("id", description="its column that names a prediction, by id, or by one of its entities")
    documents: str = Field(
        "", description="mongodb://host/database that annotations are moved to, every hour; empty: they stay in the log"
    )
    models: list[str] = Field([], description="models to watch; empty: all that have a log")
    host: str = Field("0.0.0.0", description="address that metrics are served on")
    port: int = Field(9109, ge=0, le=65535, description="port of /metrics; 0: none")
    lease_seconds: float = Field(60, ge=1, description="when a monitor is gone, another one takes over after so long")
    compact: bool = Field(True, description="turn finished days of the log into Parquet, looked for every hour")
    keep_days: int = Field(0, ge=0, description="finished days that are kept; older ones are removed; 0: all")
    every_seconds: float = Field(5, gt=0, description="time from one look at the log to the next")
    rules: Rules = Field(default_factory=lambda: Rules.model_validate({}), description="what counts as a change")
