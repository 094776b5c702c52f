"""Personal data in texts: what is found (`finding`), of which kinds, and what is done about it (`redaction`).

Kinds are in `everywhere`, `english`, `chinese` and `people`. Standard library alone, but for the
operator `encrypt`, which needs cryptography.
"""
