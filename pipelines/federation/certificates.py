"""Certificates of a federation: an authority, the coordinator's and one for each site, as NVFlare makes them.

A certificate says what it is for: with a site's, nobody can pose as the coordinator. The name in it is the site's name,
which the engine compares with the name that a connection claims.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from contracts.errors import PlatformError

COORDINATOR = "server"  # the engine's name for the one that all connect to
AUTHORITY = "ca.pem"
_AUTHORITY_KEY = "ca.key"


def make_certificates(folder: Path, sites: Sequence[str], hosts: Sequence[str], days: int = 360) -> None:
    """Write ``ca.pem``, ``ca.key``, ``server.crt``, ``server.key`` and ``<site>.crt``, ``<site>.key`` to `folder`.

    What is there is kept, so that sites can be added later; keys can be read by their owner only. `hosts`: names and
    addresses of the coordinator.

    Raises:
        PlatformError: ``code="missing_package"``; ``code="bad_config"``, a name that the engine does not take.
    """
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509 import load_pem_x509_certificate

    lighter = _lighter()
    check_names(sites)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    authority = lighter.Identity("fairlead-federation")
    if not (folder / _AUTHORITY_KEY).exists():
        key = ec.generate_private_key(ec.SECP256R1())
        made = lighter.generate_cert(authority, authority, key, key.public_key(), valid_days=10 * days, ca=True)
        _write(folder / _AUTHORITY_KEY, lighter.serialize_pri_key(key))
        (folder / AUTHORITY).write_bytes(lighter.serialize_cert(made))
    signer = lighter.load_private_key_file(folder / _AUTHORITY_KEY)
    ends = load_pem_x509_certificate((folder / AUTHORITY).read_bytes()).not_valid_after_utc
    for name in (COORDINATOR, *sites):
        if (folder / f"{name}.crt").exists():
            continue
        key = ec.generate_private_key(ec.SECP256R1())
        leads = name == COORDINATOR
        made = lighter.generate_cert(
            lighter.Identity(name),
            authority,
            signer,
            key.public_key(),
            valid_days=days,
            not_valid_after=ends if days > 3600 else None,
            server_default_host=hosts[0] if leads else None,
            server_additional_hosts=list(hosts[1:]) if leads else None,
            extra_extensions=[(_purpose(leads), False)],
        )
        _write(folder / f"{name}.key", lighter.serialize_pri_key(key))
        (folder / f"{name}.crt").write_bytes(lighter.serialize_cert(made))


def check_names(sites: Sequence[str]) -> None:
    """Refuse names that cannot be a certificate's and a process's.

    Raises:
        PlatformError: ``code="bad_config"``.
    """
    for name in sites:
        if name == COORDINATOR or not name.replace("-", "").isalnum() or not name.isascii() or len(name) > 60:
            raise PlatformError(
                f"{name!r} cannot be the name of a site",
                detail=f"letters, digits and '-', at most 60, and not {COORDINATOR!r}",
                fix="give it another name, such as bank-a",
                code="bad_config",
                site=name,
            )


def credentials(folder: Path, name: str) -> dict[str, str]:
    """What the engine needs to prove that it is `name`.

    Raises:
        PlatformError: ``code="no_certificate"``.
    """
    side = "server" if name == COORDINATOR else "client"
    files = {"ca_cert": AUTHORITY, f"{side}_cert": f"{name}.crt", f"{side}_key": f"{name}.key"}
    for file in files.values():
        if not (folder / file).is_file():
            raise PlatformError(
                f"there is no {file} in {folder}",
                detail=f"a federation needs {', '.join(files.values())} there",
                fix="fairlead federation certificates FOLDER --site NAME --host HOST, at the coordinator's",
                code="no_certificate",
                file=file,
            )
    return {key: str(folder / file) for key, file in files.items()}


def signer(folder: Path, name: str) -> tuple[str, Callable[[bytes], bytes]]:
    """The certificate of a site as text, and what signs with its key."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    key: Any = load_pem_private_key((folder / f"{name}.key").read_bytes(), None)
    return (folder / f"{name}.crt").read_text(), lambda content: key.sign(content, ec.ECDSA(hashes.SHA256()))


def checker(folder: Path) -> Callable[[str, str, bytes, bytes], None]:
    """What checks that a site of this authority, with this name and certificate, has signed something.

    It raises PlatformError, ``code="not_secure"``.
    """
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509 import load_pem_x509_certificate
    from cryptography.x509.oid import NameOID

    authority = load_pem_x509_certificate((folder / AUTHORITY).read_bytes())

    def check(name: str, certificate: str, content: bytes, signature: bytes) -> None:
        try:
            shown = load_pem_x509_certificate(certificate.encode())
            shown.verify_directly_issued_by(authority)
            called = shown.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value
            if called != name or not shown.not_valid_before_utc <= datetime.now(UTC) <= shown.not_valid_after_utc:
                raise ValueError(f"the certificate is of {called!r}, until {shown.not_valid_after_utc:%Y-%m-%d}")
            key: Any = shown.public_key()
            key.verify(signature, content, ec.ECDSA(hashes.SHA256()))
        except (InvalidSignature, ValueError, TypeError, IndexError) as err:
            raise PlatformError(
                f"keys that came in the name of site {name} are not its own",
                detail=str(err) or "the signature is wrong",
                fix="tell the partners: somebody between the sites has changed them",
                code="not_secure",
                site=name,
            ) from err

    return check


def _purpose(leads: bool) -> Any:
    from cryptography.x509 import ExtendedKeyUsage
    from cryptography.x509.oid import ExtendedKeyUsageOID

    return ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH if leads else ExtendedKeyUsageOID.CLIENT_AUTH])


def _write(file: Path, content: bytes) -> None:
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
        out.write(content)


def _lighter() -> Any:
    try:
        from nvflare.lighter import utils
    except ImportError as err:
        raise not_installed() from err
    return utils


def not_installed() -> PlatformError:
    """That the library of messages and certificates is not there."""
    return PlatformError(
        "a federation needs NVFlare, which is not installed",
        fix="pip install 'fairlead[federation]'",
        code="missing_package",
    )
