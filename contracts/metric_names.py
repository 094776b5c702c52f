"""Metric names, labels and buckets: services export them, rules and dashboards query them."""

from __future__ import annotations

PREFIX = "fairlead"

REQUESTS = "fairlead_requests_total"
REQUEST_SECONDS = "fairlead_request_duration_seconds"
STAGE_SECONDS = "fairlead_stage_duration_seconds"
INFLIGHT = "fairlead_inflight_requests"
PREDICTIONS = "fairlead_predictions_total"
ABSTENTIONS = "fairlead_abstentions_total"
FLAGGED = "fairlead_predictions_flagged_total"
SCORE = "fairlead_prediction_score"
VALUE = "fairlead_prediction_value"
ANSWER_WORDS = "fairlead_answer_words"
LIST_DIVERSITY = "fairlead_list_diversity"
OBJECTS = "fairlead_objects"
FEATURE_AGE = "fairlead_feature_age_seconds"
FEATURE_STATUS = "fairlead_feature_reads_total"
FEATURE_FRESHNESS = "fairlead_feature_freshness_seconds"
FEATURE_MISSING = "fairlead_feature_missing_ratio"
STREAM_ROWS = "fairlead_stream_rows_total"
STREAM_LAG = "fairlead_stream_lag_messages"
STREAM_NEWEST = "fairlead_stream_newest_timestamp_seconds"
STREAM_PUSH = "fairlead_stream_push_seconds"
STREAM_FAILURES = "fairlead_stream_push_failures_total"
STREAM_UP = "fairlead_stream_up"
QUEUE_DEPTH = "fairlead_queue_depth"
BATCH_ROWS = "fairlead_batch_rows"
BATCH_TOKENS = "fairlead_batch_tokens"
PADDING = "fairlead_batch_padding_ratio"
SHED = "fairlead_requests_shed_total"
MODEL_INFO = "fairlead_model_info"
MODEL_LOAD_SECONDS = "fairlead_model_load_seconds"
CORE_SECONDS = "fairlead_core_seconds_total"
MEMORY_SECONDS = "fairlead_memory_byte_seconds_total"
GPU_SECONDS = "fairlead_gpu_seconds_total"
LOG_RECORDS = "fairlead_prediction_log_records_total"
LOG_LOST = "fairlead_prediction_log_lost_total"
FEEDBACK = "fairlead_feedback_total"

FIRST_TOKEN_SECONDS = "fairlead_time_to_first_token_seconds"
TOKEN_SECONDS = "fairlead_time_between_tokens_seconds"
PROMPT_TOKENS = "fairlead_prompt_tokens_total"
CACHED_TOKENS = "fairlead_cached_prompt_tokens_total"
ANSWER_TOKENS = "fairlead_answer_tokens_total"
GENERATIONS = "fairlead_generations_total"
GUARD_HITS = "fairlead_guard_hits_total"
SLOTS = "fairlead_slots"
SLOTS_BUSY = "fairlead_slots_busy"

ROUTER_REQUESTS = "fairlead_router_requests_total"
ROUTER_FAILURES = "fairlead_router_backend_failures_total"
ROUTER_TOKENS = "fairlead_router_tokens_total"
ROUTER_COST = "fairlead_router_cost_total"
ROUTER_CACHE = "fairlead_router_cache_total"
ROUTER_DENIED = "fairlead_router_denied_total"
ROUTER_FIRST_TOKEN_SECONDS = "fairlead_router_time_to_first_token_seconds"
ROUTER_CIRCUIT = "fairlead_router_circuit_open"

ADAPTERS_HELD = "fairlead_adapters_held"
ADAPTER_READS = "fairlead_adapter_reads_total"
ADAPTERS_EVICTED = "fairlead_adapter_evictions_total"
ADAPTER_UPDATES = "fairlead_adapter_updates_total"
ADAPTER_ANSWERS = "fairlead_adapter_answers_total"
ADAPTER_TOKENS = "fairlead_adapter_tokens_total"

ENCRYPTED_ROWS = "fairlead_encrypted_rows_total"
ENCRYPTED_KEYS = "fairlead_encrypted_keys"

VIDEO_FRAMES = "fairlead_video_frames_total"
VIDEO_TRACKS = "fairlead_video_tracks_total"
VIDEO_EVENTS = "fairlead_video_events_total"
VIDEO_STREAMS = "fairlead_video_streams"
VIDEO_LAG = "fairlead_video_frame_lag_seconds"
IMAGE_JOBS = "fairlead_image_jobs_total"

MONITOR_DISTANCE = "fairlead_monitor_drift_distance"
MONITOR_DRIFT = "fairlead_monitor_drift_detected"
MONITOR_MISSING = "fairlead_monitor_missing_ratio"
MONITOR_NEW_CATEGORY = "fairlead_monitor_new_category_ratio"
MONITOR_OUT_OF_RANGE = "fairlead_monitor_out_of_range_ratio"
MONITOR_SKEW = "fairlead_monitor_skew_ratio"
MONITOR_ROWS = "fairlead_monitor_rows_total"
MONITOR_LATE_ROWS = "fairlead_monitor_late_rows_total"
MONITOR_QUALITY = "fairlead_monitor_quality"
MONITOR_QUALITY_LOW = "fairlead_monitor_quality_low"
MONITOR_QUALITY_HIGH = "fairlead_monitor_quality_high"
MONITOR_QUALITY_REFERENCE = "fairlead_monitor_quality_reference"
MONITOR_QUALITY_DROPPED = "fairlead_monitor_quality_dropped"
MONITOR_GROUP_ROWS = "fairlead_monitor_group_rows"
MONITOR_GROUP_RATE = "fairlead_monitor_group_rate"
MONITOR_FAIRNESS = "fairlead_monitor_fairness"
MONITOR_FAIRNESS_LIMIT = "fairlead_monitor_fairness_limit"
MONITOR_FAIRNESS_BROKEN = "fairlead_monitor_fairness_broken"
MONITOR_LABELS_JOINED = "fairlead_monitor_labels_total"
MONITOR_LAST_PASS = "fairlead_monitor_last_pass_timestamp_seconds"

RUN_LAST = "fairlead_run_last_timestamp_seconds"
RUN_SECONDS = "fairlead_run_duration_seconds"
STEP_SECONDS = "fairlead_step_duration_seconds"
RUN_ROWS = "fairlead_run_rows"
RUN_FAILURES = "fairlead_run_consecutive_failures"
MODEL_TRAINED = "fairlead_model_trained_timestamp_seconds"

ROLLOUT_WEIGHT = "fairlead_rollout_weight"
ROLLOUT_PHASE = "fairlead_rollout_phase"
ROLLOUTS = "fairlead_rollouts_total"

# What every model server exports.
LABELS: dict[str, tuple[str, ...]] = {
    REQUESTS: ("model", "version", "route", "code"),
    REQUEST_SECONDS: ("model", "version", "route"),
    STAGE_SECONDS: ("model", "stage"),
    INFLIGHT: ("model",),
    PREDICTIONS: ("model", "version", "label"),
    ABSTENTIONS: ("model", "version"),  # rows that are unlike those that the model has learned from
    FLAGGED: ("model", "version"),
    SCORE: ("model", "version"),  # of classifications
    VALUE: ("model", "version"),  # of regressions
    ANSWER_WORDS: ("model", "version"),  # of generation
    LIST_DIVERSITY: ("model", "version"),  # of rankings
    OBJECTS: ("model", "version"),  # of detections
    FEATURE_AGE: ("model", "view"),
    FEATURE_STATUS: ("model", "view", "status"),
    QUEUE_DEPTH: ("model",),
    BATCH_ROWS: ("model",),
    BATCH_TOKENS: ("model",),
    PADDING: ("model",),
    SHED: ("model", "reason"),
    MODEL_INFO: ("model", "version", "digest", "recipe"),
    MODEL_LOAD_SECONDS: ("model",),
    CORE_SECONDS: ("model", "state"),  # state: used, or idle: asked for beyond that
    MEMORY_SECONDS: ("model", "state"),
    GPU_SECONDS: ("model",),
    LOG_RECORDS: ("model",),
    LOG_LOST: ("model",),
    FEEDBACK: ("model", "outcome"),
}
# Of model servers that write token by token, beside those.
TOKEN_LABELS: dict[str, tuple[str, ...]] = {
    FIRST_TOKEN_SECONDS: ("model", "version"),
    TOKEN_SECONDS: ("model", "version"),
    PROMPT_TOKENS: ("model", "version"),
    CACHED_TOKENS: ("model", "version"),
    ANSWER_TOKENS: ("model", "version"),
    GENERATIONS: ("model", "version", "finish"),
    GUARD_HITS: ("model", "version", "side", "rule"),
    SLOTS: ("model",),
    SLOTS_BUSY: ("model",),
}
# Of the router of models.
ROUTER_LABELS: dict[str, tuple[str, ...]] = {
    ROUTER_REQUESTS: ("route", "backend", "outcome"),
    ROUTER_FAILURES: ("route", "backend"),
    ROUTER_TOKENS: ("key", "route", "backend", "kind"),
    ROUTER_COST: ("key", "route", "backend"),
    ROUTER_CACHE: ("route", "outcome"),
    ROUTER_DENIED: ("reason",),
    ROUTER_FIRST_TOKEN_SECONDS: ("route", "backend"),
    ROUTER_CIRCUIT: ("backend",),
}
# Of model servers with adapters of persons or customers, beside those.
ADAPTER_LABELS: dict[str, tuple[str, ...]] = {
    ADAPTERS_HELD: ("model",),
    ADAPTER_READS: ("model", "outcome"),
    ADAPTERS_EVICTED: ("model",),
    ADAPTER_UPDATES: ("model", "outcome"),
    ADAPTER_ANSWERS: ("model", "adapter", "finish"),  # of chats; adapter: its name, or (personal)
    ADAPTER_TOKENS: ("model", "adapter"),
}
# Of services that answer encrypted rows, beside those.
ENCRYPTED_LABELS: dict[str, tuple[str, ...]] = {
    ENCRYPTED_ROWS: ("model", "version", "layout"),
    ENCRYPTED_KEYS: ("model",),
}
# Of services that find objects in streams of frames, beside those.
VIDEO_LABELS: dict[str, tuple[str, ...]] = {
    VIDEO_FRAMES: ("model", "version", "outcome"),  # outcome: one of VIDEO_OUTCOMES
    VIDEO_TRACKS: ("model", "version"),
    VIDEO_EVENTS: ("model", "version", "event"),  # event: one of VIDEO_EVENT_KINDS
    VIDEO_STREAMS: ("model",),
    VIDEO_LAG: ("model", "version"),  # from a frame's arrival to its answer
}
# Answered; dropped, since the model was slower; passed over, by the stream's rate or without a change; refused.
VIDEO_OUTCOMES = ("answered", "dropped", "passed_over", "refused")
VIDEO_EVENT_KINDS = ("entered", "left", "crossed")
# Of services that make images, beside those.
DRAWING_LABELS: dict[str, tuple[str, ...]] = {IMAGE_JOBS: ("model", "version", "outcome")}
# What became of a job: its images were fetched, or let go before anybody had; it failed; it was cancelled.
IMAGE_JOB_OUTCOMES = ("collected", "uncollected", "failed", "cancelled")
# Of the monitor; gauges describe the latest complete window, and the answer is the input "(answer)".
MONITOR_LABELS: dict[str, tuple[str, ...]] = {
    MONITOR_DISTANCE: ("model", "version", "input", "measure"),  # measure: psi or js
    MONITOR_DRIFT: ("model", "version", "input"),  # 1: large and significant, corrected for all inputs
    MONITOR_MISSING: ("model", "version", "input"),
    MONITOR_NEW_CATEGORY: ("model", "version", "input"),
    MONITOR_OUT_OF_RANGE: ("model", "version", "input"),
    MONITOR_SKEW: ("model", "version", "input"),  # training-serving skew, as it was measured last
    MONITOR_ROWS: ("model", "version"),
    MONITOR_LATE_ROWS: ("model",),
    MONITOR_QUALITY: ("model", "version", "metric", "slice"),
    MONITOR_QUALITY_LOW: ("model", "version", "metric", "slice"),
    MONITOR_QUALITY_HIGH: ("model", "version", "metric", "slice"),
    MONITOR_QUALITY_REFERENCE: ("model", "version", "metric"),
    MONITOR_QUALITY_DROPPED: ("model", "version", "metric", "slice"),
    MONITOR_GROUP_ROWS: ("model", "version", "column", "group", "of"),  # of: predictions, or those with labels
    MONITOR_GROUP_RATE: ("model", "version", "column", "group", "rate"),  # rate: selection, tpr, fpr or calibration
    MONITOR_FAIRNESS: ("model", "version", "column", "measure"),  # measure: as in `contracts.fairness.MEASURES`
    MONITOR_FAIRNESS_LIMIT: ("model", "version", "column", "measure"),  # of the gate, where it has one
    MONITOR_FAIRNESS_BROKEN: ("model", "version", "column", "measure"),  # 1: beyond the limit, and not by chance
    MONITOR_LABELS_JOINED: ("model", "outcome"),  # outcome: joined, unknown, contradicting or repeated
    MONITOR_LAST_PASS: ("model",),
}
# Of the controller, about runs of pipelines; all are gauges of the latest run.
RUN_LABELS: dict[str, tuple[str, ...]] = {
    RUN_LAST: ("task", "outcome"),
    RUN_SECONDS: ("task",),
    STEP_SECONDS: ("task", "step"),
    RUN_ROWS: ("task", "step"),
    RUN_FAILURES: ("task",),
    MODEL_TRAINED: ("model",),
}
# Of whatever splits the traffic of a model between versions.
ROLLOUT_LABELS: dict[str, tuple[str, ...]] = {
    ROLLOUT_WEIGHT: ("model", "version"),
    ROLLOUT_PHASE: ("model", "phase"),  # 1 for the phase that it is in, 0 for all others
    ROLLOUTS: ("model", "outcome"),  # outcome: promoted, rolled_back or aborted
}
# Recorded per pod by helm/monitoring, for autoscalers: seconds that requests waited for the model, mean of a minute.
QUEUE_WAIT = "fairlead_queue_wait_seconds"
RECORDED_LABELS: dict[str, tuple[str, ...]] = {QUEUE_WAIT: ("namespace", "pod", "model")}
# Not of a service: `fairlead features check --metrics` writes them.
STORE_LABELS: dict[str, tuple[str, ...]] = {FEATURE_FRESHNESS: ("task", "view"), FEATURE_MISSING: ("task", "view")}
# Of the consumer of topics, `python -m feature_repo.stream`.
STREAM_LABELS: dict[str, tuple[str, ...]] = {
    STREAM_ROWS: ("topic", "outcome"),  # outcome: pushed, refused or tombstone
    STREAM_LAG: ("topic", "partition"),
    STREAM_NEWEST: ("topic",),
    STREAM_PUSH: ("topic",),
    STREAM_FAILURES: ("topic",),
    STREAM_UP: (),  # 1 while a broker answers
}
EXPORTED: dict[str, tuple[str, ...]] = {
    **LABELS,
    **TOKEN_LABELS,
    **ROUTER_LABELS,
    **ADAPTER_LABELS,
    **ENCRYPTED_LABELS,
    **VIDEO_LABELS,
    **DRAWING_LABELS,
    **MONITOR_LABELS,
    **RUN_LABELS,
    **ROLLOUT_LABELS,
    **STORE_LABELS,
    **STREAM_LABELS,
}
# "queue" is the wait for a free thread; the others are work.
STAGES = ("decode", "queue", "features", "infer", "explain", "encode")
# Why a request was refused without asking the model.
SHED_REASONS = ("queue_full", "deadline_unreachable", "deadline_passed", "rate_limited", "stopping")
# What became of labels and annotations that were posted: kept, not fit for the model, or not written.
FEEDBACK_OUTCOMES = ("accepted", "refused", "failed")
# Where an adapter came from: memory, or Redis and the store; or why there is none.
ADAPTER_OUTCOMES = ("hit", "loaded", "missing", "other_base", "unreadable", "unavailable")
# What became of feedback for an adapter: learned; learned before; its answer is not known any more; not kept.
ADAPTER_UPDATE_OUTCOMES = ("learned", "repeated", "unknown", "failed")
# How an answer ended: by itself, at its limit, as a tool call, by the guard, because the client left, or by a failure.
FINISHES = ("stop", "length", "tool_calls", "content_filter", "cancelled", "failed")
GUARD_SIDES = ("before", "after")  # in what was said, in what was answered
UNMATCHED_ROUTE = "<unmatched>"

# Seconds. Service level objectives must lie on an edge.
LATENCY_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
TOKEN_SECONDS_BUCKETS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
SCORE_BUCKETS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
WORD_BUCKETS = (0.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0)
OBJECT_BUCKETS = (0.0, 1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 50.0, 100.0)
AGE_BUCKETS = (60.0, 3600.0, 21600.0, 86400.0, 259200.0, 604800.0, 2592000.0)
ROW_BUCKETS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 1024.0)
TOKEN_BUCKETS = (16.0, 64.0, 256.0, 1024.0, 4096.0, 16384.0, 65536.0)
RATIO_BUCKETS = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
