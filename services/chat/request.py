"""What a request may say, as OpenAI's interface has it: wrong types and ranges are refused, never changed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from services.errors import Problem

MAX_MESSAGES, MAX_TOOLS, MAX_PROMPTS, MAX_INPUTS = 2_000, 64, 128, 2_048
MAX_SCHEMA_BYTES, MAX_SCHEMA_NODES, MAX_REPEATED = 65_536, 2_000, 1_000
DEFINITIONS = ("$defs", "definitions")
_REPEATS = ("minItems", "maxItems", "minLength", "maxLength")
_IGNORED = frozenset(
    ("not", "if", "contains", "multipleOf", "patternProperties", "propertyNames", "uniqueItems", "dependentRequired")
)  # keywords of JSON Schema that llama.cpp passes over
Name = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
Text = Annotated[str, Field(strict=True)]
Stop = Annotated[str, Field(min_length=1, max_length=256)]
TokenId = Annotated[str, Field(pattern=r"^[0-9]{1,7}$")]
Given = Annotated[str, Field(min_length=1)]
Bias = Annotated[float, Field(ge=-100, le=100)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class TextPart(_Part):
    """A piece of a message."""

    type: Literal["text"]
    text: str


class FunctionCall(_Part):
    """Which function a model called, its arguments as JSON text."""

    name: Name
    arguments: str


class ToolCall(_Part):
    """One call in a message of the assistant."""

    id: str
    type: Literal["function"] = "function"
    function: FunctionCall


class Message(_Part):
    """One message of a conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[TextPart] | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    refusal: str | None = None

    @property
    def text(self) -> str:
        """Its content as one text."""
        if isinstance(self.content, list):
            return "\n".join(part.text for part in self.content)
        return self.content or ""


class Function(_Part):
    """A function that a model may call."""

    name: Name
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(_Part):
    """A tool; functions are the only kind."""

    type: Literal["function"]
    function: Function


class _NamedFunction(_Part):
    name: Name


class NamedTool(_Part):
    """The one tool that has to be called."""

    type: Literal["function"]
    function: _NamedFunction


class JsonSchema(_Part):
    """The schema that an answer has to fit."""

    name: Name
    description: str | None = None
    json_schema: dict[str, Any] | None = Field(None, alias="schema")
    strict: bool | None = None


class ResponseFormat(_Part):
    """The form of an answer."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class StreamOptions(_Part):
    """What a stream has beside the text."""

    include_usage: bool = False
    include_obfuscation: bool = False


class Sampling(_Part):
    """What requests for chats and for completions share."""

    model: str
    max_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    n: int | None = Field(None, ge=1, le=128)
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    stop: Stop | Annotated[list[Stop], Field(max_length=4)] | None = None
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    logit_bias: dict[TokenId, Bias] | None = Field(None, max_length=1024)
    user: str | None = None  # is not used, and not kept

    @property
    def choices(self) -> int:
        """How many answers are asked for."""
        return self.n or 1

    @property
    def limit(self) -> int | None:
        """Tokens of an answer, at most."""
        return self.max_tokens


class ChatRequest(Sampling):
    """The body of ``/v1/chat/completions``."""

    messages: list[Message] = Field(min_length=1, max_length=MAX_MESSAGES)
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    response_format: ResponseFormat | None = None
    tools: list[Tool] | None = Field(None, max_length=MAX_TOOLS)
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    modalities: Annotated[list[Literal["text"]], Field(min_length=1, max_length=1)] | None = None
    service_tier: Literal["auto", "default"] | None = None
    store: Literal[False] | None = None
    # Of no use here, and not kept.
    metadata: dict[str, str] | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None

    @property
    def limit(self) -> int | None:
        """Tokens of an answer, at most."""
        return self.max_completion_tokens or self.max_tokens


class CompletionRequest(Sampling):
    """The body of ``/v1/completions``; prompts are texts, as tokens would pass by the guard."""

    prompt: str | Annotated[list[str], Field(min_length=1, max_length=MAX_PROMPTS)]
    logprobs: int | None = Field(None, ge=0, le=5)
    echo: bool | None = None
    suffix: None = None
    best_of: Literal[1] | None = None

    @property
    def texts(self) -> list[str]:
        """The texts that are continued."""
        return [self.prompt] if isinstance(self.prompt, str) else self.prompt


class EmbeddingRequest(_Part):
    """The body of ``/v1/embeddings``; inputs are texts: tokens of another vocabulary would mean other words."""

    model: str
    input: Given | Annotated[list[Given], Field(min_length=1, max_length=MAX_INPUTS)]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = Field(None, ge=1)
    user: str | None = None  # is not used, and not kept

    @property
    def texts(self) -> list[str]:
        """The texts that are asked for."""
        return [self.input] if isinstance(self.input, str) else self.input


R = TypeVar("R", bound=_Part)


def parsed(kind: type[R], document: Any) -> R:
    """A request that fits.

    Raises:
        Problem: 400, naming the member.
    """
    if not isinstance(document, dict):
        raise refused("", "expected an object")
    try:
        found = kind.model_validate_json(_json(document))
    except ValidationError as err:
        errors = err.errors(include_url=False, include_input=False)
        # Of the alternatives of one value that is meant which fits furthest.
        worst = max(errors, key=lambda one: (len(one["loc"]), not one["type"].endswith("_type")))
        raise refused(_place(document, worst["loc"]), worst["msg"]) from None
    if isinstance(found, ChatRequest):
        _check_messages(found.messages)
        _check_format(found)
        _check_tools(found)
    if isinstance(found, Sampling) and found.stream_options is not None and not found.stream:
        raise refused("stream_options", "is for streams: set stream to true")
    if isinstance(found, CompletionRequest) and found.echo and found.logprobs is not None:
        raise refused("logprobs", "this model gives none of a prompt: ask without echo")
    return found


def _json(document: Any) -> bytes | str:
    try:
        return orjson.dumps(document)
    except orjson.JSONEncodeError:  # deeper than 254 levels
        return json.dumps(document)


def refused(param: str, message: str, code: str = "invalid_value") -> Problem:
    """400: a member of the request is wrong."""
    return Problem(400, code, "the request is not valid", errors=[(param, message)])


def _place(document: Any, location: Sequence[Any]) -> str:
    """The member by its path, without the names of pydantic's alternatives, which are no keys of the document."""
    path, at = "", document
    for key in location:
        if isinstance(key, int):
            path, at = f"{path}[{key}]", at[key] if isinstance(at, list) and key < len(at) else None
        elif isinstance(at, Mapping):  # of a value that is no object, a name can only be an alternative's
            path, at = f"{path}.{key}" if path else str(key)[:64], at.get(key)
    return path


def _check_messages(messages: Sequence[Message]) -> None:
    open_calls: set[str] = set()
    begun = False
    for at, message in enumerate(messages):
        place = f"messages[{at}]"
        if message.role in ("system", "developer"):
            if begun:
                raise refused(f"{place}.role", f"a {message.role} message stands before all others")
        elif message.role == "tool":
            if message.tool_call_id not in open_calls:
                raise refused(f"{place}.tool_call_id", "answers no tool call of the message before it")
            open_calls.discard(message.tool_call_id)
        else:
            _check_turn(messages, at, begun, open_calls)
            begun = True
            open_calls = {call.id for call in message.tool_calls or ()}
        if message.role != "assistant" and message.content is None:
            raise refused(f"{place}.content", f"a {message.role} message has a text")
    if open_calls or messages[-1].role not in ("user", "tool"):
        raise refused("messages", "the last message is of the user, or the result of the last tool that was called")


def _check_turn(messages: Sequence[Message], at: int, begun: bool, open_calls: set[str]) -> None:
    """A message of the user or of the assistant."""
    message, place = messages[at], f"messages[{at}]"
    if open_calls:
        raise refused(f"{place}.role", "the results of all tools that were called come first")
    if message.role == "user":
        return
    if not begun or messages[at - 1].role == "assistant":
        raise refused(f"{place}.role", "a message of the assistant answers one of the user")
    if message.content is None and not message.tool_calls:
        raise refused(f"{place}.content", "a message of the assistant has a text or tool calls")


def _check_format(request: ChatRequest) -> None:
    form = request.response_format
    if form is None:
        return
    if form.type != "json_schema":
        if form.json_schema is not None:
            raise refused("response_format.json_schema", "is for type json_schema")
        return
    if form.json_schema is None or form.json_schema.json_schema is None:
        raise refused("response_format.json_schema", "has the member schema")
    check_schema(form.json_schema.json_schema, "response_format.json_schema.schema")


def _check_tools(request: ChatRequest) -> None:
    if request.top_logprobs is not None and not request.logprobs:
        raise refused("top_logprobs", "needs logprobs: true")
    names = [tool.function.name for tool in request.tools or ()]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise refused("tools", f"the function {twice} stands twice")
    for at, tool in enumerate(request.tools or ()):
        place = f"tools[{at}].function.parameters"
        check_schema(tool.function.parameters or {}, place)
        check_references(tool.function.parameters or {}, place)
    choice = request.tool_choice
    if choice not in (None, "none") and not names:
        raise refused("tool_choice", "needs tools")
    if isinstance(choice, NamedTool) and choice.function.name not in names:
        raise refused("tool_choice.function.name", f"is none of the tools; they are: {', '.join(names)}")


def check_schema(schema: Mapping[str, Any], place: str) -> None:
    """Refuse a JSON schema that would cost too much to keep to, or of which llama.cpp would leave out a part.

    Raises:
        Problem: 400.
    """
    size = len(json.dumps(schema))
    if size > MAX_SCHEMA_BYTES:
        raise refused(place, f"has {size} bytes, at most {MAX_SCHEMA_BYTES} are accepted")
    left, parts = [schema], 0
    while left:
        node = left.pop()
        parts += 1
        if parts > MAX_SCHEMA_NODES:
            raise refused(place, f"has more than {MAX_SCHEMA_NODES} parts")
        if ignored := _IGNORED & node.keys():
            raise refused(place, f"has {min(ignored)}, which an answer cannot be held to")
        pattern = node.get("pattern", "^$")
        if not (isinstance(pattern, str) and pattern.startswith("^") and pattern.endswith("$")):
            raise refused(place, "has a pattern that is not from ^ to $, which an answer cannot be held to")
        for name in _REPEATS:
            if isinstance(node.get(name), int) and node[name] > MAX_REPEATED:
                raise refused(place, f"{name} is at most {MAX_REPEATED}")
        left.extend(_inner(node))


def check_references(schema: Mapping[str, Any], place: str) -> None:
    """Refuse references that lead to no definition of the same schema, or round in a circle.

    Raises:
        Problem: 400.
    """
    known = {f"#/{kind}/{name}": one for kind in DEFINITIONS for name, one in (schema.get(kind) or {}).items()}
    left: list[Any] = [schema]
    while left:
        node = left.pop()
        left.extend(_inner(node))
        seen: set[str] = set()
        while isinstance(node, Mapping) and (named := node.get("$ref")) is not None:
            if not isinstance(named, str) or named not in known:
                raise refused(place, f"has the reference {str(named)[:80]!r}, which is none of its own $defs")
            if named in seen:
                raise refused(place, f"has the reference {named!r}, which leads back to itself")
            seen.add(named)
            node = known[named]


def _inner(node: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The schemas in a schema; names of properties and values of an enumeration are none."""
    found: list[Any] = [node.get(name) for name in ("items", "additionalProperties")]
    for name in ("properties", *DEFINITIONS):
        found += node[name].values() if isinstance(node.get(name), Mapping) else []
    for name in ("anyOf", "oneOf", "allOf", "prefixItems", "items"):
        found += node[name] if isinstance(node.get(name), list) else []
    return [one for one in found if isinstance(one, Mapping)]
