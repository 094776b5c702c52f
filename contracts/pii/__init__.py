"""Personal data in texts: what is found (`finding`), of which kinds (`everywhere`, `english`, `chinese`), and what is
done about it (`redaction`). Standard library alone, but for the operator `encrypt`, which needs cryptography."""
