"""Answers: of a registered model in this process, of an endpoint, and endpoints for as long as they are needed."""

from __future__ import annotations

import atexit
import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any

from fairlead.guard import endpoints_of, profile_name, told
from fairlead.tables import Html, Listing, bar, heading, html_table, text_table

if TYPE_CHECKING:
    import pandas as pd

    from deploy.cli.serving.encrypted import EncryptedClient
    from deploy.cli.serving.endpoint import Endpoint

    Rows = Mapping[str, Any] | Iterable[Mapping[str, Any]] | pd.DataFrame

_BESIDE = frozenset({"id", "threshold", "reasons", "flags"})  # in `predictions`, and not in the table


@dataclass(frozen=True)
class Predictions(Sequence[Mapping[str, Any]]):
    """Answers in the order of the rows.

    Attributes:
        model: which version answered, ``fraud:3``.
        predictions: each answer as the endpoint gave it.
    """

    model: str
    predictions: tuple[Mapping[str, Any], ...] = field(repr=False)

    def __getitem__(self, index: Any) -> Any:
        return self.predictions[index]

    def __len__(self) -> int:
        return len(self.predictions)

    def rows(self) -> list[dict[str, Any]]:
        """The answers without what only programs read; flags are among the notes."""
        return [{name: value for name, value in one.items() if name not in _BESIDE} for one in self.predictions]

    def frame(self) -> pd.DataFrame:
        """The answers as a data frame of pandas, with everything."""
        import pandas as pd

        return pd.DataFrame(list(self.predictions))

    def reasons(self, index: int = 0) -> Listing[Mapping[str, Any]]:
        """What spoke for an answer and against it, the strongest first; empty without ``explain=True``."""
        from deploy.cli.serving.prediction import named

        found = self.predictions[index].get("reasons") or []
        most = max((abs(one["contribution"]) for one in found), default=0.0)

        def cells(reason: Mapping[str, Any]) -> dict[str, Any]:
            amount = reason["contribution"]
            return {"reason": named(dict(reason)), "contribution": amount, "": bar(amount, most)}

        return Listing(found, cells, ["no reasons: ask with explain=True"], f"{self.model}, row {index}")

    def _shown(self) -> list[dict[str, Any]]:
        from deploy.cli.serving.prediction import notes

        return [
            {
                "row": index,
                **{name: _short(value) for name, value in row.items() if not isinstance(value, Mapping)},
                "notes": notes(one),
            }
            for index, (row, one) in enumerate(zip(self.rows(), map(dict, self.predictions), strict=True))
        ]

    def __repr__(self) -> str:
        return f"{self.model}\n{text_table(self._shown())}"

    def _repr_html_(self) -> str:
        return heading(self.model) + html_table(self._shown())


def _short(value: Any) -> Any:
    """The beginning of a long list; of objects in it their names."""
    if not isinstance(value, list):
        return value
    items = [next(iter(item.values()), None) if isinstance(item, Mapping) else item for item in value[:4]]
    return [*items, "..."] if len(value) > 4 else items


class Service:
    """A model that is served on this machine: in a ``with`` block, or from `start` to `stop`.

    It ends with the process that started it, at the latest.
    """

    def __init__(self, ref: str, profile: str, port: int | None, rollouts: bool, log: bool, encrypted: bool) -> None:
        self._ref, self._profile, self._port, self._rollouts, self._log = ref, profile, port, rollouts, log
        self._encrypted = encrypted
        self._stack = ExitStack()
        self._endpoint: Endpoint | None = None

    @told
    def start(self) -> Service:
        """Start it, and return when it takes requests.

        Raises:
            PlatformError: an unknown model, a port that is in use, or a model that does not prove itself.
        """
        if self._endpoint is None:
            with ExitStack() as stack:
                self._endpoint = stack.enter_context(self._opened(stack))
                self._stack = stack.pop_all()
            atexit.register(self.stop)
        return self

    def _opened(self, stack: ExitStack) -> Any:
        from contracts.ports import free_port
        from deploy.cli.serving.serve import ENCRYPTED, check_alone, open_endpoint

        port = self._port or free_port()
        check_alone(self._rollouts, self._encrypted)
        if self._rollouts:
            from deploy.cli.serving.rollout_serving import rollouts_served

            return rollouts_served(self._profile, self._ref, port, log=self._log)
        own = ENCRYPTED if self._encrypted else {}
        endpoint = open_endpoint(endpoints_of(self._profile), self._profile, self._ref, port, log=self._log, own=own)
        stack.callback(endpoint.stop)
        endpoint.start()
        endpoint.wait_ready()
        return endpoint

    def stop(self) -> None:
        """End it; answers in flight are finished. A rollout that is under way goes on when it is served again."""
        atexit.unregister(self.stop)
        self._endpoint = None
        self._stack.close()

    def __enter__(self) -> Service:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, err: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Its address."""
        return self._running().url

    @property
    def model(self) -> str:
        """What it serves, or began with: ``fraud:3``."""
        return f"{self._running().name}:{self._running().version}"

    def example(self) -> list[dict[str, Any]]:
        """Rows that it understands."""
        found: list[dict[str, Any]] = self._running().example()["instances"]
        return found

    def predict(self, rows: Rows, *, explain: bool = False) -> Predictions:
        """Its answers for some rows, or for one."""
        return predict(self._ref, rows, url=self.url, explain=explain, profile=self._profile)

    def _running(self) -> Endpoint:
        if self._endpoint is None:
            from contracts.errors import PlatformError

            raise PlatformError(
                f"{self._ref} is not served now",
                fix=f'with fairlead.serve("{self._ref}") as endpoint: ..., or endpoint.start()',
                code="not_served",
            )
        return self._endpoint

    def __repr__(self) -> str:
        return f"{self.model} on {self.url}" if self._endpoint else f"{self._ref}, not served now"

    def _repr_html_(self) -> str:
        if self._endpoint is None:
            return html_table([{"model": self._ref, "url": "not served now"}])
        links = {name: Html(f'<a href="{self.url}/{name}">{name}</a>') for name in ("docs", "metrics")}
        return html_table([{"model": self.model, "url": self.url, "log": str(self._endpoint.log), **links}])


@told
def serve(
    ref: str,
    *,
    port: int | None = None,
    rollouts: bool = False,
    log: bool = True,
    encrypted: bool = False,
    profile: str | None = None,
) -> Service:
    """A model to be served on this machine; ``with`` starts and ends it, or `Service.start` and `Service.stop` do.

    Args:
        ref: name (its champion), name@alias or name:version; resolved once, when it starts.
        port: None is any that is free.
        rollouts: whether later versions take over by `roll_out`, behind a router.
        log: whether its predictions are kept, redacted, for labels and monitors.
        encrypted: whether it also answers encrypted rows, see `encrypted`.
    """
    return Service(ref, profile_name(profile), port, rollouts, log, encrypted)


@told
def predict(
    ref: str,
    rows: Rows,
    *,
    url: str | None = None,
    env: str | None = None,
    key: str = "",
    explain: bool = False,
    profile: str | None = None,
) -> Predictions:
    """The answers of a model for some rows, or for one, in their order.

    Without `url` and `env` the model's own service runs in this process meanwhile, with the same features and checks.

    Args:
        url: ask the endpoint at this address.
        env: ask the model's release in the cluster of this profile.
        key: API key of the endpoint; "" is FAIRLEAD_API_KEY, then the release's own.
        explain: add the reasons of each answer.

    Raises:
        PlatformError: ``code="no_endpoint"``: nothing answers at `url`; or a row is refused, and it says which field.
    """
    from deploy.cli.serving.prediction import answered

    found = answered(profile_name(profile), ref, _rows(rows), url, env, explain, key)
    return Predictions(f"{found['model']}:{found['version']}", tuple(found["predictions"]))


class Encrypted:
    """Asks an endpoint by encrypted rows; the secret key is this object's, is never sent, and goes with it.

    Attributes:
        model: which version answers, ``credit:3``.  sent, received: bytes so far, public keys included.
    """

    def __init__(self, client: EncryptedClient) -> None:
        self._client = client

    @property
    def model(self) -> str:
        """Which version answers."""
        return f"{self._client.published.model}:{self._client.published.version}"

    @property
    def sent(self) -> int:
        """Bytes that the service got."""
        return self._client.sent

    @property
    def received(self) -> int:
        """Bytes that came back."""
        return self._client.received

    @told
    def predict(self, rows: Rows) -> Predictions:
        """The answers for some rows, or for one, in their order; all inputs of the model have to be given.

        Raises:
            PlatformError: a row is refused, and it says which field.
        """
        return Predictions(self.model, tuple(self._client.predict(_rows(rows))))

    def __repr__(self) -> str:
        return f"{self.model}, encrypted: {self.sent / 1e6:.1f} MB sent, {self.received / 1e6:.1f} MB received"


@told
def encrypted(ref: str, *, url: str | None = None, env: str | None = None, key: str = "") -> Encrypted:
    """A client of an endpoint that scores rows without seeing them, nor its answers: linear models and scorecards.

    Args:
        url, env, key: which endpoint, as in `predict`; one of the first two is needed.

    Raises:
        PlatformError: ``code="encrypted_off"``: it answers no encrypted rows; ``code="missing_extra"``: no TenSEAL.
    """
    from deploy.cli.serving.encrypted import open_client

    return Encrypted(open_client(ref, url, env, key))


def _rows(given: Any) -> list[Any]:
    """Rows as JSON has them: of a mapping one, of a data frame all, with times as text and NaN as missing."""
    if hasattr(given, "to_json"):
        import json

        found: list[Any] = json.loads(given.to_json(orient="records", date_format="iso"))
        return found
    rows = [given] if isinstance(given, Mapping) else given
    return [{name: _plain(value) for name, value in row.items()} for row in rows]


def _plain(value: Any) -> Any:
    """A value of numpy as one of Python, and no number (NaN) as none."""
    value = value.item() if getattr(value, "shape", None) == () else value
    return None if isinstance(value, float) and math.isnan(value) else value
