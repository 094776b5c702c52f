"""A sum of which the coordinator learns nothing but the sum (K. Bonawitz et al.: Practical secure aggregation, 2017).

Every two sites agree on a key (X25519) and mask their vectors with the numbers that it generates, one adding and one
taking away, so that masks cancel out in the sum. Each adds a mask of its own, too. Of the secrets behind its masks each
site gives every other a share (A. Shamir 1979), encrypted for that one. When a site drops out, `threshold` of the
others give shares of its pairwise secret; of sites that stay they give shares of their own mask. No site ever gives
shares of both of the same site, and each answers once, so a coordinator that asks some for the one and some for the
other gets enough of both only with the help of more than ``2 * threshold - sites`` sites.

What this holds against: a coordinator that follows the protocol and reads all it gets, together with fewer sites than
`threshold`; keys are signed with the sites' certificates, so it cannot put its own in their place unless it holds the
authority's key. What it does not hold against: what the sum itself tells, and sites that send wrong numbers.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contracts.errors import PlatformError

Words = NDArray[np.uint64]
Sign = Callable[[bytes], bytes]
Check = Callable[[str, str, bytes, bytes], None]  # name, certificate, content, signature

PRIME = 2**521 - 1
_SHARE = 66  # bytes of a number below PRIME
_SECRET = 32
_SCALE = 2**24
_MOST = 2**62


def threshold_of(sites: int) -> int:
    """How many sites must be left: more than two thirds."""
    return 2 * sites // 3 + 1


def as_words(values: NDArray[np.float64], sites: int) -> Words:
    """Fixed point numbers of 24 binary places, whose sum over `sites` fits into 64 bits.

    Raises:
        PlatformError: ``code="too_large"``.
    """
    scaled = np.rint(np.asarray(values, dtype=np.float64) * _SCALE)
    if not np.all(np.abs(scaled) < _MOST / max(sites, 1)):  # NaN is not below either
        raise PlatformError(
            "a number is too large to be added up securely, or is none",
            detail=f"the largest is {np.max(np.abs(values)):g}, allowed is {_MOST / _SCALE / max(sites, 1):.3g}",
            fix="bend numbers of long tails: --set model.log_scale=true; or share out the rows among more sites",
            code="too_large",
        )
    return scaled.astype(np.int64).view(np.uint64)


def as_numbers(words: Words) -> NDArray[np.float64]:
    """The inverse of `as_words`, of a sum too."""
    return words.view(np.int64).astype(np.float64) / _SCALE


def split_secret(secret: int, places: Mapping[str, int], threshold: int) -> dict[str, int]:
    """Shares of `secret` (below PRIME), of which any `threshold` tell it and fewer tell nothing. `places`: from 1."""
    polynomial = [secret, *(secrets.randbelow(PRIME) for _ in range(threshold - 1))]
    shares = {}
    for name, x in places.items():
        value = 0
        for coefficient in reversed(polynomial):
            value = (value * x + coefficient) % PRIME
        shares[name] = value
    return shares


def join_secret(shares: Mapping[int, int]) -> int:
    """The secret of place -> share, by Lagrange's polynomial at 0."""
    total = 0
    for x, share in shares.items():
        above = below = 1
        for other in shares:
            if other != x:
                above = above * -other % PRIME
                below = below * (x - other) % PRIME
        total = (total + share * above * pow(below, -1, PRIME)) % PRIME
    return total


@dataclass(frozen=True, kw_only=True)
class Keys:
    """What a site shows the others: public keys for shares and masks, its certificate, and its signature of both."""

    share: bytes
    mask: bytes
    certificate: str
    signature: bytes

    def as_dict(self) -> dict[str, str]:
        return {name: value if isinstance(value, str) else value.hex() for name, value in vars(self).items()}

    @classmethod
    def from_dict(cls, document: Mapping[str, str]) -> Keys:
        found = {name: bytes.fromhex(document[name]) for name in ("share", "mask", "signature")}
        return cls(certificate=document["certificate"], **found)


def verify(name: str, sum_id: str, keys: Keys, check: Check) -> None:
    """Check that site `name` has signed these keys for this sum.

    Raises:
        PlatformError: ``code="not_secure"``.
    """
    check(name, keys.certificate, _signed(sum_id, name, keys.share, keys.mask), keys.signature)


class Masker:
    """A site's part of one sum, called `sum_id`: `keys`, `shares`, `masked` and `unmask`, in this order, each once."""

    def __init__(self, name: str, sum_id: str, certificate: str, sign: Sign) -> None:
        from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

        self.name, self.sum_id = name, sum_id
        self._share, self._mask = X25519PrivateKey.generate(), X25519PrivateKey.generate()
        self._own = secrets.token_bytes(_SECRET)
        share, mask = (one.public_key().public_bytes_raw() for one in (self._share, self._mask))
        signature = sign(_signed(sum_id, name, share, mask))
        self.keys = Keys(share=share, mask=mask, certificate=certificate, signature=signature)
        self._peers: dict[str, Keys] = {}
        self._threshold = 0
        self._received: dict[str, tuple[int, int]] = {}
        self._answered = False

    def shares(self, peers: Mapping[str, Keys], check: Check) -> dict[str, bytes]:
        """For every site of `peers`, which has this one too, its shares of both secrets, encrypted.

        Raises:
            PlatformError: ``code="not_secure"``: fewer than 3 sites, or keys that are not signed by their site.
        """
        if len(peers) < 3 or peers.get(self.name) != self.keys or self._peers:
            raise _refused(self.name, f"keys of {len(peers)} sites, of which 3 are needed, this one's among them, once")
        for name, keys in peers.items():
            verify(name, self.sum_id, keys, check)
        self._peers, self._threshold = dict(peers), threshold_of(len(peers))
        places = places_of(peers)
        private = int.from_bytes(self._mask.private_bytes_raw(), "big")
        parts = [split_secret(one, places, self._threshold) for one in (private, int.from_bytes(self._own, "big"))]
        self._received[self.name] = (parts[0][self.name], parts[1][self.name])
        return {name: self._seal(name, parts[0][name], parts[1][name]) for name in peers if name != self.name}

    def masked(self, words: Words, received: Mapping[str, bytes]) -> Words:
        """The vector, masked against all that have sent their shares, which are `received`.

        Raises:
            PlatformError: ``code="not_secure"``: too few shares, or one that was changed on its way.
        """
        self._received |= {name: self._open(name, sealed) for name, sealed in received.items()}
        if len(self._received) < self._threshold or not self._threshold:
            raise _refused(self.name, f"shares of {len(self._received)} sites, of which {self._threshold} are needed")
        total = words + generated(self._own, len(words))
        for name in self._received:
            if name != self.name:
                total = _with_pair(total, self.name, name, self._pair(name))
        return total

    def unmask(self, survivors: set[str], dropped: set[str]) -> dict[str, bytes]:
        """Shares of the own mask of each survivor, and of the pairwise secret of each that has dropped out.

        Raises:
            PlatformError: ``code="not_secure"``: what is asked would tell more than the sum.
        """
        wrong = (survivors & dropped) or survivors | dropped != set(self._received) or self.name not in survivors
        if wrong or len(survivors) < self._threshold or self._answered:
            raise _refused(self.name, f"to be asked once for {self._threshold} sites that are left, and those gone")
        self._answered = True
        found = {name: self._received[name][1] for name in survivors}
        found |= {name: self._received[name][0] for name in dropped}
        return {name: share.to_bytes(_SHARE, "big") for name, share in found.items()}

    def _pair(self, other: str) -> bytes:
        return _agreed(self._mask, self._peers[other].mask, self.sum_id, self.name, other, "mask")

    def _seal(self, other: str, *shares: int) -> bytes:
        nonce = secrets.token_bytes(12)
        content = b"".join(one.to_bytes(_SHARE, "big") for one in shares)
        sealed: bytes = nonce + self._cipher(other).encrypt(nonce, content, _way(self.sum_id, self.name, other))
        return sealed

    def _open(self, other: str, sealed: bytes) -> tuple[int, int]:
        from cryptography.exceptions import InvalidTag

        try:
            content = self._cipher(other).decrypt(sealed[:12], sealed[12:], _way(self.sum_id, other, self.name))
        except (InvalidTag, KeyError, ValueError) as err:
            raise _refused(self.name, f"the shares of {other} as they were sent") from err
        return int.from_bytes(content[:_SHARE], "big"), int.from_bytes(content[_SHARE:], "big")

    def _cipher(self, other: str) -> Any:
        from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

        return ChaCha20Poly1305(_agreed(self._share, self._peers[other].share, self.sum_id, self.name, other, "share"))


def summed(
    sum_id: str,
    masked: Mapping[str, Words],
    keys: Mapping[str, Keys],
    began: Iterable[str],
    shares: Mapping[str, Mapping[str, bytes]],
) -> Words:
    """The sum of the vectors of those in `masked`.

    Args:
        keys: of all sites that began.  began: those of them that sent shares; who is not in `masked` has dropped out.
        shares: what sites gave at last, site -> site whose secret it is of -> share.

    Raises:
        PlatformError: ``code="quorum"``: too few shares.
    """
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    threshold = threshold_of(len(keys))
    places = places_of(keys)
    total: Words = np.asarray(np.stack(list(masked.values())).sum(axis=0, dtype=np.uint64))
    width = len(total)
    for name in sorted(began):
        given = {places[giver]: int.from_bytes(found[name], "big") for giver, found in shares.items() if name in found}
        if len(given) < threshold:
            raise PlatformError(
                "a secure sum cannot be opened: too many sites have gone",
                detail=f"{len(given)} sites answered of {len(keys)}, {threshold} are needed",
                fix="wait for the sites, and start again; or ask for fewer",
                code="quorum",
            )
        secret = join_secret(dict(list(given.items())[:threshold])).to_bytes(_SHARE, "big")[-_SECRET:]
        if name in masked:
            total = total - generated(secret, width)
            continue
        private = X25519PrivateKey.from_private_bytes(secret)
        for other in masked:
            # What `other` has added because of the site that is gone.
            total = total - _with_pair(
                np.zeros(width, np.uint64),
                other,
                name,
                _agreed(private, keys[other].mask, sum_id, name, other, "mask"),
            )
    return total


def places_of(names: Mapping[str, Any]) -> dict[str, int]:
    """The place of each site on the polynomials."""
    return {name: at + 1 for at, name in enumerate(sorted(names))}


def generated(key: bytes, width: int) -> Words:
    """So many words that only who has the key can tell from chance (AES-256 in counter mode; each key is used once)."""
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    stream = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()
    return np.frombuffer(stream.update(bytes(8 * width)), dtype="<u8").astype(np.uint64)


def _with_pair(total: Words, name: str, other: str, key: bytes) -> Words:
    """Of two sites, the first by name adds what the second takes away."""
    words = generated(key, len(total))
    return total + words if name < other else total - words


def _agreed(private: Any, public: bytes, sum_id: str, name: str, other: str, use: str) -> bytes:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    about = json.dumps([use, sum_id, *sorted((name, other))]).encode()
    shared = private.exchange(X25519PublicKey.from_public_bytes(public))
    return HKDF(algorithm=hashes.SHA256(), length=_SECRET, salt=None, info=about).derive(shared)


def _signed(sum_id: str, name: str, share: bytes, mask: bytes) -> bytes:
    return json.dumps(["fairlead-secure-sum", sum_id, name, share.hex(), mask.hex()]).encode()


def _way(sum_id: str, sender: str, receiver: str) -> bytes:
    return json.dumps([sum_id, sender, receiver]).encode()


def _refused(name: str, needs: str) -> PlatformError:
    return PlatformError(
        f"site {name} takes no part in this secure sum",
        detail=f"it needs {needs}",
        fix="see the coordinator: it must follow the protocol",
        code="not_secure",
        site=name,
    )
