"""Names of OpenAI's interface as its OpenAPI document has them: of requests, and of answers, required ones first."""

from __future__ import annotations

from typing import Any

REQUESTS = {
    "chat": """audio frequency_penalty function_call functions logit_bias logprobs max_completion_tokens max_tokens
        messages metadata modalities model moderation n parallel_tool_calls prediction presence_penalty prompt_cache_key
        prompt_cache_options prompt_cache_retention reasoning_effort response_format safety_identifier seed service_tier
        stop store stream stream_options temperature tool_choice tools top_logprobs top_p user verbosity
        web_search_options""",
    "completion": """best_of echo frequency_penalty logit_bias logprobs max_tokens model n presence_penalty prompt seed
        stop stream stream_options suffix temperature top_p user""",
    "embedding": "dimensions encoding_format input model user",
}
REFUSED = {
    "chat": """audio function_call functions moderation prediction prompt_cache_options reasoning_effort verbosity
        web_search_options""",
    "completion": "",
    "embedding": "",
}
"""Those that are refused as unknown: models here cannot do what they ask for, or they are of OpenAI's platform."""

ANSWERS = {
    "chat.completion": (
        "choices created id model object",
        "metadata moderation service_tier system_fingerprint usage",
    ),
    "chat.completion.chunk": (
        "choices created id model object",
        "moderation obfuscation service_tier system_fingerprint usage",
    ),
    "text_completion": ("choices created id model object", "system_fingerprint usage"),
    "chat choice": ("finish_reason index logprobs message", ""),
    "chunk choice": ("delta finish_reason index", "logprobs"),
    "text choice": ("finish_reason index logprobs text", ""),
    "message": ("content refusal role", "annotations audio function_call tool_calls"),
    "delta": ("", "content function_call refusal role tool_calls"),
    "call": ("function id type", ""),
    "call chunk": ("index", "function id type"),
    "logprob": ("bytes logprob token top_logprobs", ""),
    "usage": ("completion_tokens prompt_tokens total_tokens", "completion_tokens_details prompt_tokens_details"),
    "list": ("data object", "model usage"),
    "embedding": ("embedding index object", ""),
    "embeddings usage": ("prompt_tokens total_tokens", ""),
    "model": ("created id object owned_by", "shutdown_date"),
    "error": ("code message param type", ""),
}


def check(kind: str, document: Any) -> None:
    """Fail where a part of an answer has a member that OpenAI does not know, or lacks one that it promises."""
    required, more = (set(names.split()) for names in ANSWERS[kind])
    have = set(document)
    assert required <= have, f"{kind} lacks {sorted(required - have)}"
    assert have <= required | more, f"{kind} has {sorted(have - required - more)}"


def check_answer(document: Any) -> None:
    """Check a whole answer, or a chunk of a stream, of chats and of completions."""
    kind = document["object"]
    check(kind, document)
    for choice in document["choices"]:
        check({"chat.completion": "chat choice", "text_completion": "text choice"}.get(kind, "chunk choice"), choice)
        if "message" in choice:
            check("message", choice["message"])
            for call in choice["message"].get("tool_calls", ()):
                check("call", call)
        if "delta" in choice:
            check("delta", choice["delta"])
            for call in choice["delta"].get("tool_calls", ()):
                check("call chunk", call)
        if kind != "text_completion":
            for one in (choice["logprobs"] or {}).get("content", ()):
                check("logprob", one)
    if document.get("usage"):
        check("usage", document["usage"])
