"""Settings of a model server; every key is an environment variable ``FAIRLEAD_SERVICE_<KEY>``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import ConfigDict, Field, field_validator, model_validator

from contracts.engine import MAX_PIXELS
from contracts.errors import PlatformError
from contracts.settings import Settings, load
from contracts.video.settings import VideoSettings
from contracts.written_answers import CHARACTERS, PASSAGES, TOKENS

PREFIX = "FAIRLEAD_SERVICE_"
_ORIGIN = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<host>[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::(?P<port>[0-9]{1,5}))?"
)
_PORTS = {"http": "80", "https": "443"}


class PredictionLogSettings(Settings):
    """What is kept of each prediction; empty `folder` keeps nothing."""

    model_config = ConfigDict(coerce_numbers_to_str=True)

    folder: str = Field("", description="folder of the JSON lines, one file per process and day, or s3://bucket/prefix")
    upload_seconds: float = Field(60, gt=0, le=3600, description="in S3: records wait so long, and are then one object")
    sample: float = Field(1.0, ge=0, le=1, description="share of the predictions that are logged")
    entities: Literal["hash", "drop", "keep"] = Field("hash", description="what becomes of entity keys")
    text: Literal["drop", "hash", "truncate"] = Field("drop", description="what becomes of free text")
    text_chars: int = Field(200, ge=1, description="characters kept by text=truncate")
    salt: str = Field("", description="key of the hashes; empty: random, hashes then match within one process only")


class AdapterSettings(Settings):
    """Where the small parts of single persons or customers are; empty `folder`: the base answers alone."""

    folder: str = Field("", description="adapters: a folder, or s3://bucket/prefix, which needs redis; empty: none")
    redis: str = Field("", description="redis:// of their hot copies, which servers of one model share; empty: none")
    entity: str = Field(
        "",
        pattern=r"^$|^[A-Za-z_][A-Za-z0-9_]{0,63}$",
        description="field of requests that says whose; empty: the user of recommendations, else the only entity; of "
        "chats nobody, or user",
    )
    cached: int = Field(20_000, ge=1, description="adapters in memory; those that were not used for longest leave")
    fresh_seconds: float = Field(0.5, ge=0, le=60, description="what another server has learned shows so soon")
    wait_seconds: int = Field(3600, ge=1, le=604_800, description="answers wait so long for feedback that teaches")
    loaded: int = Field(16, ge=1, le=64, description="of chats: adapters that the engine has at a time; others replace")
    ahead: int = Field(
        16, ge=0, le=10_000, description="of chats: requests for the adapter that is computed that go before older ones"
    )


class KeyBudget(Settings):
    """What one key may ask for; 0: any number."""

    requests_per_minute: int = Field(0, ge=0, description="requests that begin")
    tokens_per_minute: int = Field(0, ge=0, description="tokens read and written")
    tokens_per_day: int = Field(0, ge=0, description="tokens read and written")
    priority: Literal["high", "normal", "low"] = Field("high", description="the most urgent that it may ask for")

    @property
    def millionths_per_day(self) -> int:
        """None: these tokens have no price."""
        return 0


_ANY = KeyBudget.model_validate({})  # of who has none


class BudgetSettings(Settings):
    """Of chats: what holders of API keys may use; empty `keys`: as much as they ask for."""

    keys: dict[str, KeyBudget] = Field(
        default_factory=dict, description="by the name of a key in keys_file; default: of all others"
    )
    redis: str = Field("", description="redis:// where servers of one model count together; empty: each for itself")

    def of(self, caller: str) -> KeyBudget:
        """Of a key, by its name."""
        return self.keys.get(caller) or self.keys.get("default") or _ANY


class EngineSettings(Settings):
    """Of chats: vLLM in the place of llama.cpp; without `url` the service starts llama.cpp itself."""

    url: str = Field("", description="of a vLLM with the safetensors of this bundle, as http://127.0.0.1:8000")
    model: str = Field("", description="what it calls them; empty: name@digest, 12 digits")
    key_file: str = Field("", description="file with its API key; empty: it needs none")
    wait_seconds: float = Field(600.0, ge=0, description="time that it may take to load the weights")
    adapters: str = Field("", description="folder that it reads as well, into which adapters are written for it")


class AskedSettings(Settings):
    """What the pod asked for, by which its cost is counted; zero where nothing is asked for."""

    millicores: float = Field(0.0, ge=0, description="thousandths of CPUs")
    memory_bytes: float = Field(0.0, ge=0, description="memory")
    gpus: int = Field(0, ge=0, description="GPUs")


class WriterSettings(Settings):
    """Of answers from documents: the chat model that writes them; without one they are quoted."""

    url: str = Field("", description="address of a service with OpenAI's interface, before /v1; empty: none")
    bundle: str = Field("", description="folder of a bundle of a chat model, which runs beside this one; empty: none")
    model: str = Field("", description="name of the model at the address; empty: the first one")
    key_file: str = Field("", description="file with the API key of the address")
    max_tokens: int = Field(TOKENS, ge=1, le=8192, description="of an answer")
    passages: int = Field(PASSAGES, ge=1, le=50, description="that the model reads")
    passage_characters: int = Field(
        CHARACTERS, ge=100, description="of a passage that the model reads; the rest is cut"
    )
    timeout_seconds: float = Field(60.0, gt=0, description="without a piece of the answer; then passages are quoted")
    threads: int = Field(1, ge=1, description="of a chat model of our own")
    slots: int = Field(4, ge=1, le=64, description="answers that it writes together")


class CorsSettings(Settings):
    """Which web pages may ask the service from a browser; none by default."""

    origins: list[str] = Field(
        [], description='origins of pages that may ask, as ["https://shop.example"]; ["*"]: every page'
    )
    credentials: bool = Field(False, description="let pages send cookies and client certificates; keys need it not")
    max_age_seconds: int = Field(600, ge=0, le=86_400, description="time for which browsers keep what they were told")

    @field_validator("origins", mode="before")
    @classmethod
    def _listed(cls, given: Any) -> Any:
        return [part.strip() for part in given.split(",") if part.strip()] if isinstance(given, str) else given

    @field_validator("origins")
    @classmethod
    def _canonical(cls, given: list[str]) -> list[str]:
        """As browsers write them: in lower case, and without the port that the scheme implies."""
        return [_origin(text) for text in given]

    @model_validator(mode="after")
    def _not_everyone(self) -> CorsSettings:
        if self.credentials and "*" in self.origins:
            raise ValueError("with credentials the origins have to be named, browsers accept no *")
        return self


Action = Literal["off", "note", "mask", "refuse"]


class GuardSettings(Settings):
    """Of chats: what becomes of what the rules of `services.chat.guard` find.

    It is noted in any case, in the metrics and in the log, without the text.
    """

    personal: Action = Field("note", description="personal data: off, note, mask (both ways) or refuse")
    secrets: Action = Field("note", description="keys and tokens: off, note, mask (both ways) or refuse")
    injection: Literal["off", "note", "refuse"] = Field(
        "note", description="orders to forget what the model was told, in messages: off, note or refuse"
    )
    classifier: str = Field(
        "", description="folder of a bundle that tells the class of a text, such as that of task guard; default none"
    )
    classes: dict[str, Literal["off", "note", "refuse"]] = Field(
        default_factory=dict,
        description="what becomes of texts of a class of the classifier; others than harmless, which is off, are noted",
    )
    threshold: float = Field(0.5, gt=0, lt=1, description="probability from which a text is of a class")
    languages: list[Literal["en", "zh", "other"]] = Field(
        default_factory=list, description="that messages and answers may have; default all"
    )
    other_language: Literal["note", "refuse"] = Field("note", description="what becomes of texts in another language")


class DrawingSettings(Settings):
    """Of models that draw: what they refuse, how much they do for one request, and the marks of their images."""

    denied_labels: list[str] = Field([], description="classes that are never drawn; asking for one is refused")
    denied_words: list[str] = Field([], description="words that no prompt may have, whatever it asks for")
    max_images: int = Field(64, ge=1, le=1000, description="images of one request")
    max_side: int = Field(512, ge=1, le=4096, description="pixels of the longer side of an image, enlarged")
    max_waiting_seconds: float = Field(
        120.0, gt=0, description="estimated time of the work that waits; requests beyond it get 429"
    )
    max_jobs: int = Field(200, ge=1, le=100_000, description="jobs that are kept, those that have ended go first")
    keep_seconds: float = Field(3600.0, gt=0, description="time for which the images of a job are kept")
    redis: str = Field(
        "", description="redis:// where servers of one model share jobs; empty: a job is known where it was taken"
    )
    max_takeovers: int = Field(
        3,
        ge=0,
        description="times that a job is taken over from a server that is gone, and begun anew; 0: it has failed",
    )
    visible_mark: bool = Field(False, description="write the letters AI into every image; else who asks says so")
    seal_file: str = Field("", description="file of a key that seals what images say of themselves; empty: no seal")

    @field_validator("denied_labels", "denied_words", mode="before")
    @classmethod
    def _listed(cls, given: Any) -> Any:
        return [part.strip() for part in given.split(",") if part.strip()] if isinstance(given, str) else given


class AbstainSettings(Settings):
    """Of models that tell how far a row is from those that they have learned from, see docs/vision.md."""

    enabled: bool = Field(True, description="answer ood_score and abstain, where the model can tell")
    above: float = Field(1.0, description="ood_score beyond which abstain is true; 1 is the limit of the training")


class EmbeddingSettings(Settings):
    """Of chats: what answers /v1/embeddings; without `source` they are refused."""

    source: str = Field(
        "", description="model (the weights that chat), a GGUF file of an encoder, or a folder with an ONNX encoder"
    )
    name: str = Field("", description="name that clients call the encoder by; default: that of the file or folder")
    pooling: Literal["auto", "mean", "cls", "last"] = Field(
        "auto", description="of tokens to one vector; auto: as the encoder says, else mean"
    )
    max_tokens: int = Field(0, ge=0, description="tokens of one text; 0: as the encoder says, else 512")


class EncryptedSettings(Settings):
    """Encrypted inference of linear models, see docs/trust.md; needs the extra `encrypted`."""

    enabled: bool = Field(False, description="answer POST /encrypted/score")
    max_keys: int = Field(16, ge=1, le=1000, description="public keys that are kept, 6 MiB each; the oldest go first")
    max_key_bytes: int = Field(1 << 20, ge=1 << 16, description="bytes of public keys; larger ones are refused")
    max_body_bytes: int = Field(32 << 20, ge=1 << 20, description="of a request with ciphertexts, 0.24 MB each")
    max_waiting: int = Field(4, ge=1, le=256, description="requests that are computed or wait for it; more get 429")
    budget_rows: int = Field(
        10_000, ge=1, description="rows that one caller may have scored in budget_seconds; answers tell of the weights"
    )
    budget_seconds: float = Field(86_400, gt=0, description="time after which the budget of a caller is whole again")


class StreamSettings(Settings):
    """Of ``/stream``, where a client sends frames over one connection and gets the objects of each."""

    connections: int = Field(8, ge=1, le=1000, description="streams at a time; more are refused with 429")
    queue: int = Field(4, ge=1, le=1000, description="frames of one stream that wait for the model")
    full: Literal["drop", "wait"] = Field(
        "drop", description="one frame more: drop the oldest that waits, or wait before the next is received"
    )
    idle_seconds: float = Field(60, gt=0, le=86_400, description="a stream without a frame for so long is closed")
    video: VideoSettings = Field(
        default_factory=lambda: VideoSettings.model_validate({}), description="what a client may say otherwise"
    )


class ServiceSettings(Settings):
    """Which bundle is served, and the limits within which it answers."""

    model_config = ConfigDict(coerce_numbers_to_str=True)

    # Kubernetes gives these to every pod beside a Service that is called "fairlead".
    foreign_environment: ClassVar[frozenset[str]] = frozenset(
        {"host", "port", "port_http", "port_metrics", "port_http_metrics"}
    )

    bundle: str = Field("", description="folder of the bundle")
    name: str = Field("", description="name that clients call the model by; default: the bundle's")
    version: str = Field("", description="version in the registry; default: the bundle's digest, 12 characters")
    online: str = Field("", description="online store, a SQLite file or redis://; empty: requests bring all features")
    threads: int = Field(1, ge=1, description="threads of one model call")
    workers: int = Field(1, ge=1, le=64, description="model calls at the same time; workers x threads fit the CPUs")
    device: str = Field("auto", description="of engine torch: auto, cpu, cuda or cuda:N; auto takes a GPU if any")
    compile: bool = Field(False, description="of engine torch: torch.compile, which needs a C compiler at the start")
    slots: int = Field(4, ge=1, le=256, description="of chats: answers that are written together; others wait")
    window: int = Field(0, ge=0, description="of chats: tokens of a conversation; 0: as the bundle says")
    memory_check: bool = Field(True, description="of chats: refuse a model that is estimated not to fit into memory")
    max_waiting_tokens: int = Field(
        65_536, ge=1, description="of chats: tokens of the requests that wait for a slot, estimated; more: 429"
    )
    pin_cpus: bool = Field(False, description="give each worker CPUs of its own, when there are enough")
    max_batch_rows: int = Field(64, ge=1, description="rows of several requests that share one model call")
    max_batch_tokens: int = Field(16_384, ge=1, description="tokens of one model call, padding included")
    batch_wait_ms: float = Field(0.0, ge=0, le=1000, description="wait for more rows while a worker is free")
    inline_ms: float = Field(0.2, ge=0, le=10, description="calls known to be shorter are made without a thread")
    max_body_bytes: int = Field(8 << 20, ge=1024, description="larger requests, unpacked, are refused with 413")
    max_instances: int = Field(1000, ge=1, description="rows of one request")
    max_text_chars: int = Field(1 << 20, ge=1, description="characters of one text field; more is refused with 422")
    max_image_pixels: int = Field(
        MAX_PIXELS, ge=1, description="pixels of all images of one request; more is refused with 422"
    )
    deny_file: str = Field("", description="of recommendations: file of items that are never listed, one a line")
    drafts: bool = Field(
        False, description="of recommendations: draft lists with the version that the router's x-draft-with names"
    )
    vector_store: str = Field(
        "",
        pattern=r"^$|^(postgres|postgresql|redis|rediss)://",
        description="of answers: postgresql:// with pgvector, or redis:// of Redis 8 or later, which searches vectors; "
        "empty: the bundle's own",
    )
    writer: WriterSettings = Field(default_factory=lambda: WriterSettings.model_validate({}))
    max_concurrency: int = Field(64, ge=1, description="requests waiting for the model; more are refused with 429")
    timeout_seconds: float = Field(10.0, gt=0, description="a request that takes longer is answered with 504")
    drain_seconds: float = Field(0.0, ge=0, description="time between 'not ready' and closing the port at SIGTERM")
    graceful_seconds: int = Field(30, ge=1, description="time that requests in flight have to finish at SIGTERM")
    header_seconds: float = Field(10.0, gt=0, description="time that a client has to send a request's headers")
    stuck_seconds: float = Field(60.0, gt=0, description="a model call that takes longer ends the readiness")
    keys_file: str = Field(
        "", description="file of API keys (name:sha256[:requests per second][:operator][:labels=a|b]); empty: none"
    )
    grpc_port: int = Field(0, ge=0, le=65535, description="port of the Open Inference Protocol over gRPC; 0: none")
    grpc_host: str = Field("127.0.0.1", description="address that gRPC listens on; 0.0.0.0 or :: in a pod")
    cors: CorsSettings = Field(default_factory=lambda: CorsSettings.model_validate({}))
    stream: StreamSettings = Field(default_factory=lambda: StreamSettings.model_validate({}))
    encrypted: EncryptedSettings = Field(default_factory=lambda: EncryptedSettings.model_validate({}))
    abstain: AbstainSettings = Field(default_factory=lambda: AbstainSettings.model_validate({}))
    drawing: DrawingSettings = Field(default_factory=lambda: DrawingSettings.model_validate({}))
    tagger: str = Field(
        "", description="of /redact: folder of a bundle that finds names, places and organisations, or presidio"
    )
    asked: AskedSettings = Field(default_factory=lambda: AskedSettings.model_validate({}))
    guard: GuardSettings = Field(default_factory=lambda: GuardSettings.model_validate({}))
    budgets: BudgetSettings = Field(default_factory=lambda: BudgetSettings.model_validate({}))
    engine: EngineSettings = Field(default_factory=lambda: EngineSettings.model_validate({}))
    embeddings: EmbeddingSettings = Field(default_factory=lambda: EmbeddingSettings.model_validate({}))
    predictions: PredictionLogSettings = Field(default_factory=lambda: PredictionLogSettings.model_validate({}))
    adapters: AdapterSettings = Field(default_factory=lambda: AdapterSettings.model_validate({}))

    @model_validator(mode="after")
    def _whose_budgets(self) -> ServiceSettings:
        if not self.keys_file and (named := self.budgets.keys.keys() - {"default"}):
            raise ValueError(f"budgets.keys names {', '.join(sorted(named))}, and there is no keys_file with such keys")
        return self


def _origin(text: str) -> str:
    if text in ("*", "null"):
        return text
    found = _ORIGIN.fullmatch(text.lower())
    if found is None or int(found["port"] or 0) > 65_535:
        raise ValueError(f"{text!r} is no origin: write scheme://host or scheme://host:port, without a path")
    scheme, host, port = found["scheme"], found["host"], found["port"]
    return f"{scheme}://{host}" if port in (None, _PORTS.get(scheme)) else f"{scheme}://{host}:{port}"


def load_settings(
    environ: Mapping[str, str] | None = None, kind: type[ServiceSettings] = ServiceSettings
) -> ServiceSettings:
    """Settings of this kind from the environment.

    Raises:
        PlatformError: an unknown key, a wrong value, or no bundle.
    """
    settings = load(kind, prefix=PREFIX, environ=environ)
    if not settings.bundle:
        raise PlatformError(
            "no bundle to serve", fix=f"set {PREFIX}BUNDLE to the folder of a bundle", code="bad_settings"
        )
    return settings
