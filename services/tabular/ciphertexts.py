"""Scores of encrypted rows, by TenSEAL: ciphertexts in, ciphertexts out; nothing here has a secret key."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contracts.encrypted import DEGREE, MODULI, REACH, SCALE_BITS, SLOTS, Linear
from contracts.errors import PlatformError
from services.errors import Problem

_FLOOD = 2.0**-16  # more than the error of the scheme, which depends on the weights; less than what is promised
Check = Callable[[], None]


class Evaluator:
    """Computes with one model's weights, on one thread at a time.

    Raises:
        PlatformError: ``code="missing_extra"`` without TenSEAL; ``code="not_encryptable"``, see `Linear.bound`.
    """

    def __init__(self, linear: Linear) -> None:
        try:
            import tenseal
        except ImportError as err:
            raise PlatformError(
                "encrypted inference needs TenSEAL",
                detail=str(err),
                fix="pip install -c constraints.txt -e '.[encrypted]', or set encrypted.enabled to false",
                code="missing_extra",
            ) from err
        self._library, self._weights, self._bias = tenseal, linear.weights, linear.bias
        self.bound, self.width = linear.bound, len(linear.weights)
        self.per_ciphertext = SLOTS // self.width
        own = tenseal.context(tenseal.SCHEME_TYPE.CKKS, DEGREE, coeff_mod_bit_sizes=list(MODULI), n_threads=1)
        own.global_scale = 2.0**SCALE_BITS
        self._parameters = _first_field(own.serialize(save_secret_key=False))
        self._level = tenseal.ckks_vector(own, [0.0] * SLOTS).ciphertext()[0].parms_id()

    def keys(self, data: bytes) -> Any:
        """The public keys of a caller.

        Raises:
            Problem: 422 for what is none, has a secret key, or is of other parameters.
        """
        if not data.startswith(self._parameters):
            raise _foreign("keys of other parameters, or no keys of TenSEAL")
        try:
            keys = self._library.context_from(data, n_threads=1)
            if keys.is_private():
                raise Problem(
                    422,
                    "secret-key",
                    "these keys hold a secret key, which must not leave the client",
                    "they were not kept",
                    fix="create new keys, and leave the secret one out: context.serialize(save_secret_key=False)",
                )
            level = self._library.ckks_vector(keys, [0.0] * SLOTS).ciphertext()[0].parms_id()
            if level != self._level or keys.global_scale != 2.0**SCALE_BITS:
                raise _foreign("keys of other parameters")
        except (ValueError, RuntimeError, TypeError) as err:
            raise _foreign(f"no public keys of TenSEAL ({type(err).__name__})") from None
        return keys

    def rows(self, keys: Any, frames: Sequence[bytes], rows: int, check: Check) -> list[bytes]:
        """Scores of `rows` rows in the layout ``rows``; `check` raises when nobody waits any more.

        Each slot is answered with a number that hides it, and those of a row add up to its score.
        """
        answers, left = [], rows
        for at, frame in enumerate(frames):
            check()
            here = min(left, self.per_ciphertext)
            left -= here
            factors = _used(np.tile(self._weights, here))
            product = self._loaded(keys, frame, at) * factors
            answers.append(self._answer(keys, product, self._masks(here)))
        return answers

    def columns(self, keys: Any, frames: Sequence[bytes], rows: int, check: Check) -> list[bytes]:
        """Scores of `rows` rows in the layout ``columns``."""
        total = None
        for at, (frame, weight) in enumerate(zip(frames, self._weights.tolist(), strict=True)):
            check()
            part = self._loaded(keys, frame, at) * (weight if rows == SLOTS else _used(np.full(rows, weight)))
            total = part if total is None else total + part
        added = _uniform(SLOTS, REACH)
        added[:rows] = self._bias + _uniform(rows, _FLOOD)
        return [self._answer(keys, total, added)]

    def _loaded(self, keys: Any, frame: bytes, at: int) -> Any:
        where = f"ciphertext {at} (counted from 0)"
        try:
            vector = self._library.ckks_vector_from(keys, frame)
            parts = vector.ciphertext()
        except (ValueError, RuntimeError, TypeError) as err:
            raise _garbled(f"{where} cannot be read with these keys ({type(err).__name__})") from None
        if len(parts) != 1 or vector.size() != SLOTS:
            raise _garbled(f"{where} does not have {SLOTS} slots")
        one = parts[0]
        if one.parms_id() != self._level or one.size() != 2 or one.is_transparent():
            raise _garbled(f"{where} is of other parameters, or was computed with before")
        if one.scale != 2.0**SCALE_BITS:
            raise _garbled(f"{where} is of another scale than 2**{SCALE_BITS}")
        return vector

    def _answer(self, keys: Any, computed: Any, added: NDArray[np.float64]) -> bytes:
        """What was computed, and a fresh encryption of `added`: without one its parts would tell the weights."""
        fresh = self._library.ckks_vector(keys, added.tolist())
        return bytes((computed + fresh).serialize())

    def _masks(self, rows: int) -> NDArray[np.float64]:
        """What is added to the slots: of each row numbers that add up to the bias, and random ones in unused slots."""
        masks = _uniform(SLOTS, REACH)
        used = rows * self.width
        drawn = _uniform(used, REACH / 2).reshape(rows, self.width)
        added = drawn - np.roll(drawn, 1, axis=1)
        added[:, 0] += self._bias
        added += _uniform(used, _FLOOD / np.sqrt(self.width)).reshape(rows, self.width)
        masks[:used] = added.ravel()
        return masks


def _uniform(count: int, reach: float) -> NDArray[np.float64]:
    """Numbers between -reach and reach, by the operating system's generator, shape (count,)."""
    drawn = np.frombuffer(os.urandom(8 * count), dtype=np.uint64).astype(np.float64)
    found: NDArray[np.float64] = (drawn / 2.0**63 - 1.0) * reach
    return found


def _used(factors: NDArray[np.float64]) -> list[float]:
    """Factors of all slots: what a client put into those that it does not say it uses is multiplied by zero."""
    found = np.zeros(SLOTS)
    found[: len(factors)] = factors
    whole: list[float] = found.tolist()
    return whole


def _first_field(serialised: bytes) -> bytes:
    """The encryption parameters with which TenSEAL's keys begin: a tag, the length (of 7 bits a byte), the bytes."""
    length, at = 0, 1
    while True:
        length |= (serialised[at] & 0x7F) << (7 * (at - 1))
        at += 1
        if serialised[at - 1] < 0x80:
            return serialised[: at + length]


def _foreign(detail: str) -> Problem:
    return Problem(
        422,
        "foreign-keys",
        "the public keys do not fit",
        detail,
        fix="create keys by the scheme of GET /encrypted",
    )


def _garbled(detail: str) -> Problem:
    fix = "encrypt with the keys and the scheme of GET /encrypted, and send ciphertexts as they are"
    return Problem(422, "bad-ciphertext", "a ciphertext does not fit", detail, fix=fix)
