"""Metric names, labels and buckets: services export them, rules and dashboards query them."""

from __future__ import annotations

PREFIX = "fairlead"

REQUESTS = "fairlead_requests_total"
REQUEST_SECONDS = "fairlead_request_duration_seconds"
STAGE_SECONDS = "fairlead_stage_duration_seconds"
INFLIGHT = "fairlead_inflight_requests"
PREDICTIONS = "fairlead_predictions_total"
SCORE = "fairlead_prediction_score"
VALUE = "fairlead_prediction_value"
FEATURE_AGE = "fairlead_feature_age_seconds"
FEATURE_STATUS = "fairlead_feature_reads_total"
FEATURE_FRESHNESS = "fairlead_feature_freshness_seconds"
FEATURE_MISSING = "fairlead_feature_missing_ratio"
QUEUE_DEPTH = "fairlead_queue_depth"
BATCH_ROWS = "fairlead_batch_rows"
BATCH_TOKENS = "fairlead_batch_tokens"
PADDING = "fairlead_batch_padding_ratio"
SHED = "fairlead_requests_shed_total"
MODEL_INFO = "fairlead_model_info"
MODEL_LOAD_SECONDS = "fairlead_model_load_seconds"

LABELS: dict[str, tuple[str, ...]] = {
    REQUESTS: ("model", "version", "route", "code"),
    REQUEST_SECONDS: ("model", "version", "route"),
    STAGE_SECONDS: ("model", "stage"),
    INFLIGHT: ("model",),
    PREDICTIONS: ("model", "version", "label"),
    SCORE: ("model", "version"),  # of classifications
    VALUE: ("model", "version"),  # of regressions
    FEATURE_AGE: ("model", "view"),
    FEATURE_STATUS: ("model", "view", "status"),
    QUEUE_DEPTH: ("model",),
    BATCH_ROWS: ("model",),
    BATCH_TOKENS: ("model",),
    PADDING: ("model",),
    SHED: ("model", "reason"),
    MODEL_INFO: ("model", "version", "digest", "recipe"),
    MODEL_LOAD_SECONDS: ("model",),
}
# Recorded per pod by helm/monitoring, for autoscalers: seconds that requests waited for the model, mean of a minute.
QUEUE_WAIT = "fairlead_queue_wait_seconds"
RECORDED_LABELS: dict[str, tuple[str, ...]] = {QUEUE_WAIT: ("namespace", "pod", "model")}
# Not of a service: `fairlead features check --metrics` writes them.
STORE_LABELS: dict[str, tuple[str, ...]] = {FEATURE_FRESHNESS: ("task", "view"), FEATURE_MISSING: ("task", "view")}
# "queue" is the wait for a free thread; the others are work.
STAGES = ("decode", "queue", "features", "infer", "explain", "encode")
# Why a request was refused without asking the model.
SHED_REASONS = ("queue_full", "deadline_unreachable", "deadline_passed", "rate_limited", "stopping")
UNMATCHED_ROUTE = "<unmatched>"

# Seconds. Service level objectives must lie on an edge.
LATENCY_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
SCORE_BUCKETS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
AGE_BUCKETS = (60.0, 3600.0, 21600.0, 86400.0, 259200.0, 604800.0, 2592000.0)
ROW_BUCKETS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 1024.0)
TOKEN_BUCKETS = (16.0, 64.0, 256.0, 1024.0, 4096.0, 16384.0, 65536.0)
RATIO_BUCKETS = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
