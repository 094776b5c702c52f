"""What an engine refuses, as failures of ours."""

from __future__ import annotations

from contracts.errors import PlatformError
from services.chat.llama import EngineRefusedError
from services.errors import Problem


def of_engine(err: EngineRefusedError, window: int) -> Problem:
    """What llama.cpp refuses, in our words: never those of a template or of a grammar, which repeat texts."""
    if err.error.get("type") == "exceed_context_size_error":
        tokens = err.error.get("n_prompt_tokens") or "too many"
        message = f"the prompt has {tokens} tokens, and the window of this model {window}; an answer needs one at least"
        return Problem(400, "context_length_exceeded", "the prompt is too long", errors=[("messages", message)])
    if err.error.get("code") == 404:  # vLLM was started again, without the adapter
        return no_adapter()
    if err.error.get("code") == 400:
        fix = "correct the schema, or what the model's chat template cannot say"
        return Problem(400, "invalid_request", "the model cannot be asked this", fix=fix)
    if "grammar" in err.error.get("message", ""):
        return Problem(400, "invalid_request", "no answer fits the schema", fix="correct its limits")
    return Problem(500, "engine-failed", "the model failed to answer", "see the service's log")


def away() -> Problem:
    """503: the engine, which others start, does not answer."""
    return Problem(503, "engine_away", "the engine does not answer", headers={"retry-after": "5"})


def gone() -> Problem:
    """503: the engine has ended."""
    return Problem(503, "crashed", "llama.cpp has ended", fix="try again when the service is ready")


def no_adapter(err: PlatformError | None = None) -> Problem:
    """503: the engine has not got the adapter, or has ended with it; the base answers all the same."""
    detail = "see the service's log" if err else "the process that had it has ended"
    return Problem(503, "adapter_unavailable", "the adapter cannot be used", detail, headers={"retry-after": "1"})
