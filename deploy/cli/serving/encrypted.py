"""Predictions of an endpoint that cannot read the rows, nor its answers: the client's side of encrypted inference.

The secret key is made here, stays in this process, and goes when it ends. Preparing rows (scaling, bins), decrypting,
and what follows from a score are done here, by what the service publishes.
"""

from __future__ import annotations

import http.client
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np
from pydantic import ValidationError

from contracts.encrypted import DEGREE, MODULI, REACH, SCALE_BITS, SLOTS, Head, Published, Scheme, key_id, pack, unpack
from contracts.errors import PlatformError
from deploy.cli.serving.prediction import API_KEY, problem, shown
from deploy.cli.terminal.output import emit

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from rich.console import Console

_CIPHERTEXT = 4 * DEGREE * 8 + 1024  # bytes, at most
_AT_ONCE = 16  # ciphertexts of the layout rows in one request, about 0.1 s
_DIGITS = 5  # what is beyond is the scheme's own error, which would tell of the key to who sees it
_APART = 1e-3  # two sums of one row
_TIMEOUT = 60.0

Ask = Callable[[str, bytes | None], tuple[int, bytes]]  # path, body of a POST or None for GET -> status, body


class EncryptedClient:
    """Asks one endpoint; not for several threads.

    Args:
        ask: sends a request.

    Attributes:
        published: what the service says of its model.
        sent, received: bytes of bodies so far, public keys included.
        service_seconds: time that answers took to come, all together.
    """

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self.sent = self.received = 0
        self.service_seconds = 0.0
        self.published = self._read_published()
        self._library, self._context = _new_keys(self.published.scheme)
        self._public: bytes = self._context.serialize(
            save_public_key=True, save_secret_key=False, save_galois_keys=False, save_relin_keys=False
        )
        self.key = key_id(self._public)
        self._send("/encrypted/keys", self._public)

    def predict(self, rows: Sequence[Any]) -> list[dict[str, Any]]:
        """Answers to rows in their order, as ``POST /predict`` gives them, without ids; cards with their points.

        Raises:
            PlatformError: a row is refused, here, and it says which field; or the service refuses.
        """
        try:
            return self._predict(rows)
        except PlatformError as err:
            if err.code != "another_version":
                raise
        self.published = self._read_published()  # a rollout took place meanwhile
        return self._predict(rows)

    def _predict(self, rows: Sequence[Any]) -> list[dict[str, Any]]:
        batch, slots = self._prepared(rows)
        sums = np.concatenate([self._scored(layout, part) for layout, part in self._parts(slots)])
        sums = np.round(sums, _DIGITS)
        said, signature = self.published, self.published.signature
        answers = said.link.probabilities(sums)
        decided = signature.problem.decide(signature.output, said.decision, answers)
        found: list[dict[str, Any]] = signature.problem.documents(signature.output, said.decision, answers, decided)
        for one, flags, total in zip(found, batch.flags, sums, strict=True):
            if said.link.kind == "points":
                one["points"] = round(total)
            one["flags"] = flags
        return found

    def _prepared(self, rows: Sequence[Any]) -> tuple[Any, NDArray[np.float64]]:
        """The rows, checked as the service checks open ones, and their slots, shape (rows, width)."""
        from services.errors import Problem
        from services.model.request_schema import RequestSchemas

        if not rows:
            raise PlatformError("no rows to predict", fix="give at least one", code="bad_input")
        signature = self.published.signature
        schemas = RequestSchemas.of(signature, max_chars=1 << 20, lookup=False, clean={})
        try:
            batch = schemas.by_features.rows(list(rows))
        except Problem as err:
            raise problem(err.status, json.loads(err.body())) from None
        slots = self.published.form.slots(signature.inputs, batch.columns)
        bound = self.published.limits.bound
        if (far := np.argwhere(~(np.abs(slots) <= bound))).size:
            row, slot = (int(at) for at in far[0])
            raise PlatformError(
                "a value is too far from usual ones to be encrypted",
                detail=f"instances[{row}].{self.published.form.named(signature.inputs, slot)}: more than {bound:g} "
                "standard deviations from the mean of the training rows",
                fix="correct the value, or ask without encryption",
                code="bad_input",
                row=row,
            )
        return batch, slots

    def _parts(self, slots: NDArray[np.float64]) -> Iterator[tuple[Any, NDArray[np.float64]]]:
        """The rows in requests: few in the layout that needs few ciphertexts, many in the one that packs them best."""
        width, per = slots.shape[1], SLOTS // slots.shape[1]
        room = (self.published.limits.body_bytes - len(self._public) - 1024) // _CIPHERTEXT
        start = 0
        while start < len(slots):
            few = 4 * -(-(len(slots) - start + 1) // per) <= width
            layout, step = ("rows", per * max(2, min(room, _AT_ONCE))) if few or width > room else ("columns", SLOTS)
            yield layout, slots[start : start + step - 1]  # and one for the proof
            start += step - 1

    def _scored(self, layout: Any, slots: NDArray[np.float64]) -> NDArray[np.float64]:
        """Decrypted sums of rows, shape (rows,). The first row is sent twice: sums under other keys are random numbers.

        Raises:
            PlatformError: ``code="bad_answer"``.
        """
        sums = self._sums(layout, np.concatenate([slots, slots[:1]]))
        if abs(sums[0] - sums[-1]) > _APART or float(np.abs(sums).max()) > 2 * REACH:
            raise PlatformError(
                "the answers do not decrypt to scores",
                detail="the same row got two of them: other keys were used, or something between changed the answers",
                fix="try again; it must say the same model and version",
                code="bad_answer",
            )
        return sums[:-1]

    def _sums(self, layout: Any, slots: NDArray[np.float64]) -> NDArray[np.float64]:
        rows, width = slots.shape
        if layout == "columns":
            frames = [self._encrypted(column) for column in slots.T]
            return self._decrypted(self._answers(layout, rows, frames, 1)[0])[:rows]
        per = SLOTS // width
        pieces = [slots[at : at + per] for at in range(0, rows, per)]
        frames = [self._encrypted(piece.ravel()) for piece in pieces]
        answers = self._answers(layout, rows, frames, len(frames))
        return np.concatenate([
            self._decrypted(answer)[: piece.size].reshape(piece.shape).sum(axis=1)
            for answer, piece in zip(answers, pieces, strict=True)
        ])  # fmt: skip

    def _answers(self, layout: Any, rows: int, frames: Sequence[bytes], count: int) -> list[bytes]:
        """Ciphertexts that answer others; the keys go along when the service does not have them any more."""
        head = Head(key=self.key, published=self.published.id, layout=layout, rows=rows)
        try:
            body = self._send("/encrypted/score", pack([head.model_dump_json().encode(), *frames]))
        except PlatformError as err:
            if err.code != "unknown_key":
                raise
            head = head.model_copy(update={"attached": True})
            body = self._send("/encrypted/score", pack([head.model_dump_json().encode(), self._public, *frames]))
        try:
            answers = unpack(body)
        except ValueError:
            answers = []
        if len(answers) != count:
            raise _no_service(f"{len(answers)} ciphertexts came back for {count}")
        return answers

    def _encrypted(self, values: NDArray[np.float64]) -> bytes:
        filled = np.zeros(SLOTS)
        filled[: len(values)] = values
        return bytes(self._library.ckks_vector(self._context, filled.tolist()).serialize())

    def _decrypted(self, ciphertext: bytes) -> NDArray[np.float64]:
        try:
            return np.array(self._library.ckks_vector_from(self._context, ciphertext).decrypt(), dtype=np.float64)
        except (ValueError, RuntimeError) as err:
            raise _no_service(f"an answer is no ciphertext of these parameters ({err})") from err

    def _read_published(self) -> Published:
        body = self._send("/encrypted", None)
        try:
            return Published.model_validate_json(body)
        except ValidationError as err:
            raise _no_service("GET /encrypted says nothing that this version understands") from err

    def _send(self, path: str, body: bytes | None) -> bytes:
        began = time.perf_counter()
        status, answer = self._ask(path, body)
        self.service_seconds += time.perf_counter() - began
        self.sent += len(body or b"")
        self.received += len(answer)
        if status != 200:
            try:
                said = json.loads(answer)
            except ValueError:
                said = answer.decode(errors="replace")
            raise problem(status, said)
        return answer


def _new_keys(scheme: Scheme) -> tuple[Any, Any]:
    """TenSEAL, and keys of the only parameters that we take: weaker ones would show the rows."""
    if scheme != Scheme():
        asked = f"degree {scheme.poly_modulus_degree}, moduli {scheme.coeff_mod_bit_sizes}"
        raise PlatformError(
            "the service asks for other encryption parameters than this client takes",
            detail=f"got {asked}; takes {DEGREE}, {MODULI}",
            fix="use the client of the service's version",
            code="bad_scheme",
        )
    try:
        import tenseal
    except ImportError as err:
        raise PlatformError(
            "encrypted inference needs TenSEAL",
            detail=str(err),
            fix="pip install -c constraints.txt -e '.[encrypted]'",
            code="missing_extra",
        ) from err
    context = tenseal.context(tenseal.SCHEME_TYPE.CKKS, DEGREE, coeff_mod_bit_sizes=list(MODULI), n_threads=1)
    context.global_scale = 2.0**SCALE_BITS
    return tenseal, context


def _no_service(detail: str) -> PlatformError:
    return PlatformError(
        "the endpoint does not answer as an encrypted one",
        detail=detail,
        fix="is it ours? see --url",
        code="bad_answer",
    )


class HttpAsk:
    """Sends over one connection that is kept open, with an API key where there is one."""

    def __init__(self, url: str, key: str = "") -> None:
        if not url.startswith(("http://", "https://")):
            raise PlatformError(f"not an address: {url!r}", fix="give it with its scheme: --url http://127.0.0.1:3001")
        self._url, self._shown = urlsplit(url.rstrip("/").removesuffix("/predict")), url
        self._headers = {"authorization": f"Bearer {key}"} if key else {}
        self._connection: http.client.HTTPConnection | None = None

    def __call__(self, path: str, body: bytes | None) -> tuple[int, bytes]:
        """See `Ask`; a kept connection that the other side has closed is opened again, once."""
        for fresh in (self._connection is None, True):
            try:
                if self._connection is None:
                    kind = http.client.HTTPSConnection if self._url.scheme == "https" else http.client.HTTPConnection
                    self._connection = kind(self._url.hostname or "", self._url.port, timeout=_TIMEOUT)
                headers = {**self._headers, "content-type": "application/octet-stream"}
                self._connection.request("GET" if body is None else "POST", self._url.path + path, body, headers)
                answer = self._connection.getresponse()
                return answer.status, answer.read()
            except (OSError, http.client.HTTPException) as err:
                self.close()
                if fresh:
                    raise PlatformError(
                        f"no answer from {self._shown}",
                        detail=str(err),
                        fix="start it: fairlead serve MODEL --encrypted, or correct --url",
                        code="no_endpoint",
                    ) from err
        raise AssertionError("unreachable")

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def open_client(ref: str, url: str | None, env: str | None, key: str = "") -> EncryptedClient:
    """A client of the endpoint at `url`, or of the model's release in an environment.

    Raises:
        PlatformError: neither or both are given, nothing answers, or it answers no encrypted rows.
    """
    if bool(url) == bool(env):
        raise PlatformError(
            "encrypted rows are for a service that somebody else runs",
            detail="both --url and --env are given" if url else "neither --url nor --env is given",
            fix=f"fairlead serve {ref} --encrypted, then --url with its address",
            code="bad_input",
        )
    key = key or os.environ.get(API_KEY, "")
    if env:
        from deploy.cli.releases.release_address import reach_release

        url, made = reach_release(env, ref)
        key = key or made
    return EncryptedClient(HttpAsk(url or "", key))


def predict_encrypted(
    ref: str, rows: list[Any], url: str | None, env: str | None, explain: bool, as_json: bool
) -> None:
    """Predict the given rows without showing them to the service, and print the answers in their order."""
    if explain:
        raise PlatformError(
            "encrypted answers have no reasons",
            detail="they would tell the weights",
            fix="leave --explain or --encrypted out",
            code="bad_input",
        )
    began = time.perf_counter()
    client = open_client(ref, url, env)
    predictions = client.predict(rows)
    said = client.published
    measured = {
        "key": client.key,
        "bytes_sent": client.sent,
        "bytes_received": client.received,
        "seconds": round(time.perf_counter() - began, 3),
        "seconds_of_service": round(client.service_seconds, 3),
    }
    document = {"model": said.model, "version": said.version, "predictions": predictions, "encrypted": measured}
    sizes = f"{client.sent / 1e6:.1f} MB sent, {client.received / 1e6:.1f} MB back, {measured['seconds']} s"

    def show(out: Console) -> None:
        out.print(f"[bold]{said.model}:{said.version}[/], encrypted")
        out.print(shown(predictions))
        out.print(f"{sizes}; the secret key was this command's and is gone", soft_wrap=True)

    emit(document, as_json, show)
