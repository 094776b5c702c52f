"""Kinds that are the same in every language: e-mail, addresses of machines, accounts, cards, keys."""

from __future__ import annotations

import re
from dataclasses import replace

from contracts.pii import checks
from contracts.pii.kind import Draw, Kind, apart, never, words

_CARD = words(
    "card",
    "credit",
    "pay",
    "visa",
    "mastercard",
    "amex",
    "debit",
    "payment",
    "卡号",
    "银行卡",
    "信用卡",
    "账号",
    "账户",
    "卡",
)
_GROUPS = (
    r"\d{4}(?:[ -]\d{4}){2,3}(?:[ -]?\d{1,3})?|\d{4}[ -]\d{6}[ -]\d{4,5}|\d{6}[ -]\d{9,13}"
    r"|(?<!\d )\d(?: \d){14,18}(?! ?\d)"
)
_NETWORKS = ("198.18", "198.19")  # RFC 2544: for measurements, nobody's


def _email(draw: Draw, value: str) -> str:
    return f"{draw.like('aaaaaaaa')}@example.com"


def _ip(draw: Draw, value: str) -> str:
    if ":" in value:
        return "2001:db8:" + ":".join(f"{draw.below(65535) + 1:x}" for _ in range(6))
    return f"{draw.pick(_NETWORKS)}.{draw.below(256)}.{draw.below(256)}"


def _iban(draw: Draw, value: str) -> str:
    body = draw.like(value[4:])
    total = int("".join(str(int(sign, 36)) for sign in f"{body}{value[:2]}00"))
    return f"{value[:2]}{98 - total % 97:02d}{body}"


def _card(draw: Draw, value: str) -> str:
    body = draw.like(value[:-1], keep=4)
    return next(body + digit for digit in "0123456789" if checks.luhn(body + digit))


def _casefold(text: str) -> str:
    return text.strip().casefold()


EMAIL = Kind(
    name="email",
    pattern=re.compile(
        r"(?<![A-Za-z0-9._%+-])[A-Za-z0-9_%+][A-Za-z0-9._%+-]{0,63}@"
        r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.){1,8}[A-Za-z]{2,24}(?![A-Za-z0-9])"
    ),
    known=_casefold,
    rank=9,
    surrogate=_email,
)
IPV4 = Kind(
    name="ip",
    pattern=re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w]|\.\d)"),
    valid=checks.ip_address,
    known=_casefold,
    rank=8,
    surrogate=_ip,
)
IPV6 = Kind(
    name="ip",
    pattern=re.compile(r"(?<![\w:.])(?:[0-9A-Fa-f]{0,4}:){3,7}(?:[0-9A-Fa-f]{1,4}|(?:\d{1,3}\.){3}\d{1,3})?(?![\w:])"),
    valid=checks.ip_address,
    known=_casefold,
    rank=8,
    surrogate=_ip,
)
IBAN = Kind(
    name="iban",
    pattern=re.compile(
        r"(?<![0-9A-Za-z])[A-Za-z]{2}\d{2}(?:[ -]?[0-9A-Za-z]{4}){2,7}(?:[ -]?[0-9A-Za-z]{1,3})?(?![0-9A-Za-z])"
    ),
    valid=checks.iban,
    rank=9,
    surrogate=_iban,
    split=True,
)
CARD = Kind(
    name="card",
    pattern=re.compile(rf"(?=\d)(?<![0-9A-Za-z])(?<!\d\.)(?:\d{{12,19}}|{apart(_GROUPS)})(?![0-9A-Za-z]|\.\d)"),
    valid=checks.card,
    rank=8,
    chance=0.1,
    surrogate=_card,
    split=True,
)
OTHER_CARD = replace(
    CARD,
    pattern=re.compile(rf"(?=\d)(?<![0-9A-Za-z])(?<!\d\.)(?:\d{{12,19}}|{_GROUPS})(?![0-9A-Za-z]|\.\d)"),
    valid=checks.any_card,
    context=_CARD,
    alone=never,
    rank=5,
)
TOKEN = Kind(
    name="secret",
    pattern=re.compile(
        r"-----BEGIN (?:[A-Z]{2,12} ){0,3}PRIVATE KEY-----(?:[^-]|-(?!----)){0,20000}(?:-----END [A-Z ]{0,40}-----)?"
        r"|(?<![0-9A-Za-z_])(?:A[KS]IA[0-9A-Z]{16}|gh[pousr]_[0-9A-Za-z]{36,251}|github_pat_\w{22,255}"
        r"|sk-[0-9A-Za-z_-]{20,200}|[rs]k_(?:live|test)_[0-9A-Za-z]{16,99}|xox[abeprs]-[0-9A-Za-z-]{10,250}"
        r"|AIza[0-9A-Za-z_-]{35}|LTAI[0-9A-Za-z]{12,24}|AKID[0-9A-Za-z]{32}|glpat-[0-9A-Za-z_-]{20,64}|hf_[0-9A-Za-z]{30,40}"
        r"|eyJ[0-9A-Za-z_-]{8,2000}\.eyJ[0-9A-Za-z_-]{8,4000}\.[0-9A-Za-z_-]{8,1000})(?![0-9A-Za-z_])"
    ),
    known=str,
    rank=10,
)
PASSWORD = Kind(
    name="secret",
    pattern=re.compile(
        r"(?i:(?<![A-Za-z])(?:api[_ -]?key|access[_ -]?key|secret[_ -]?key|client[_ -]?secret"
        r"|auth[_ -]?token|token|secret"
        r"|passw(?:or)?d|passphrase|pwd)|密码|口令|密钥|令牌)[\"']? ?(?:[:=]|是|为) ?[\"']?"
        r"(?P<value>[!-&(-+\--:<-~]{6,200})"
    ),
    known=str,
    rank=7,
)

KINDS = (EMAIL, IPV4, IPV6, IBAN, CARD, OTHER_CARD, TOKEN, PASSWORD)
