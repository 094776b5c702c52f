"""Names what exceptions of libraries mean; known by type name and message, so that no library is imported for it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from contracts.errors import PlatformError


@dataclass(frozen=True)
class _Meaning:
    """`kind` matches the dotted name of the exception or of a base of it, `says` its message."""

    kind: str
    headline: str
    fix: str
    code: str
    says: str = ""


_SPACE = "free some space and run again: finished steps are kept"
_COPY = "check it with gzip -t FILE, and copy it again from where it is whole"
_STORE = "check address, user and password of the store: fairlead doctor"
_AGAIN = "see whether it runs and can be reached: fairlead doctor; then run again"
_RIGHTS = "give this user the right to do it there, or correct user and password"

_MEANINGS = (
    _Meaning(
        r"MemoryError|_?duckdb\.OutOfMemory", "memory ran out", "run it with less data or more memory", "out_of_memory"
    ),
    _Meaning(r"(mlflow|sqlalchemy|sqlite3)\.", "the disk of a database is full", _SPACE, "disk_full", "disk is full"),
    _Meaning(
        r"(mlflow|sqlalchemy|sqlite3)\.",
        "a database is held by another process",
        "end the other process, or wait for it, and run again",
        "database_busy",
        "database( table)? is locked",
    ),
    _Meaning(
        r"(mlflow|sqlalchemy|sqlite3)\.",
        "this user may not write to a database",
        "give this user the right to write to the file and to its folder",
        "no_access",
        "readonly database|unable to open database",
    ),
    _Meaning(
        r"(mlflow|sqlalchemy|sqlite3)\.",
        "a database is damaged",
        "move the file away or put its backup back, and run again",
        "damaged_database",
        "malformed|not a database",
    ),
    _Meaning(
        r"mlflow\.",
        "the tracking server does not answer",
        _AGAIN,
        "no_tracking",
        r"failed with exception|Max retries exceeded|timed out|TEMPORARILY_UNAVAILABLE|(error code|too many) 50[0234]",
    ),
    _Meaning(
        r"(sqlalchemy|pymysql|psycopg2?|MySQLdb)\.|mlflow\.",
        "a database does not answer",
        _AGAIN,
        "database_unreachable",
        r"\((2002|2003|2006|2013|1040)[,)]|Lost connection|gone away|Connection (refused|reset|timed out)"
        "|could not (connect|translate)|server closed the connection|QueuePool limit|too many connections",
    ),
    _Meaning(r"mlflow\.", "MLflow refused this user", _RIGHTS, "no_access", "PERMISSION_DENIED|UNAUTHENTICATED|40[13]"),
    _Meaning(r"mlflow\.", "MLflow refused what was asked", "see what it is like: fairlead doctor", "tracking_refused"),
    _Meaning(
        r"lightgbm\.",
        "LightGBM refused the data or a setting",
        "correct what its message names, or take another recipe: fairlead tasks",
        "training_refused",
    ),
    _Meaning(r"zlib\.error|gzip\.BadGzipFile", "a file is damaged, or is not compressed", _COPY, "bad_source"),
    _Meaning(r"EOFError", "a compressed file ends too early", _COPY, "bad_source", "[Cc]ompressed"),
    _Meaning(
        r"_?duckdb\.",
        "DuckDB refused the data",
        "correct the column or file that its message names",
        "bad_data",
    ),
    _Meaning(
        r"pyarrow\.lib\.",
        "Arrow could not read or convert the data",
        "correct the column or file that its message names, and write the file again",
        "bad_data",
    ),
    _Meaning(
        r"onnxruntime\.",
        "ONNX Runtime refused the model or its input",
        "train the model again with the installed version: fairlead run TASK --no-cache",
        "bad_model",
    ),
    _Meaning(r"onnx\.", "the model is no valid ONNX", "train it again: fairlead run TASK --no-cache", "bad_model"),
    _Meaning(
        r"redis\.exceptions\.OutOfMemoryError|redis\.",
        "the Redis server has no memory left",
        "raise its maxmemory, or delete keys that nobody needs",
        "store_full",
        "OOM|maxmemory",
    ),
    _Meaning(
        r"redis\.exceptions\.(AuthenticationError|AuthenticationWrongNumberOfArgsError|NoPermissionError)",
        "the Redis server refused this user",
        "set FAIRLEAD_REDIS_PASSWORD, and give the user the right to read and write",
        "no_access",
    ),
    _Meaning(
        r"redis\.",
        "the Redis server refused this user",
        "set FAIRLEAD_REDIS_PASSWORD, and give the user the right to read and write",
        "no_access",
        "NOAUTH|WRONGPASS|NOPERM",
    ),
    _Meaning(
        r"redis\.exceptions\.(ReadOnlyError|ResponseError)",
        "the Redis server takes no writes",
        "name the primary and not a replica in `online` of the profile (FAIRLEAD_ONLINE)",
        "read_only_store",
        "READONLY|read only replica",
    ),
    _Meaning(
        r"redis\.exceptions\.(ConnectionError|TimeoutError)",
        "the Redis server does not answer",
        _STORE,
        "unreachable",
    ),
    _Meaning(r"redis\.", "the Redis server refused what was asked", _STORE, "store_refused"),
    _Meaning(
        r"botocore\.exceptions\.(NoCredentialsError|PartialCredentialsError)",
        "there is no login for the object storage",
        "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        "no_access",
    ),
    _Meaning(
        r"(botocore|boto3)\.",
        "the object storage refused this user",
        _RIGHTS,
        "no_access",
        "AccessDenied|Forbidden|InvalidAccessKeyId|SignatureDoesNotMatch|ExpiredToken",
    ),
    _Meaning(
        r"(botocore|boto3)\.",
        "the object storage has no such bucket",
        "make the bucket, or correct the address in the profile",
        "not_found",
        "NoSuchBucket",
    ),
    _Meaning(
        r"(botocore|boto3)\.",
        "the object storage does not answer",
        _AGAIN,
        "storage_unreachable",
        r"[Cc]onnect|timed out|[Tt]imeout|SlowDown|InternalError|ServiceUnavailable|Throttl|\(50[0234]\)",
    ),
    _Meaning(
        r"(botocore|boto3)\.",
        "the object storage does not answer as it should",
        "check AWS_ENDPOINT_URL, AWS_REGION and the network, and run again",
        "storage_failed",
    ),
    _Meaning(
        r"OSError",
        "the object storage does not answer",
        _AGAIN,
        "storage_unreachable",
        "AWS Error (NETWORK_CONNECTION|SLOW_DOWN|SERVICE_UNAVAILABLE|INTERNAL_FAILURE|REQUEST_TIMEOUT|THROTTLING)",
    ),
    _Meaning(
        r"requests\.exceptions\.(ConnectionError|Timeout|ChunkedEncodingError)|urllib3\.exceptions\.(HTTPError|Timeout)"
        r"|http\.client\.(RemoteDisconnected|IncompleteRead)|socket\.gaierror|(ConnectionError|TimeoutError)$",
        "a server does not answer, or the connection to it was lost",
        _AGAIN,
        "unreachable",
    ),
    _Meaning(
        r"urllib\.error\.URLError",
        "a server does not answer, or the connection to it was lost",
        _AGAIN,
        "unreachable",
        r"urlopen error|HTTP Error 50[0234]",
    ),
    _Meaning(
        r"(sqlalchemy|sqlite3)\.",
        "a database refused what was asked",
        "see what it is like: fairlead doctor",
        "database",
    ),
)


TRANSIENT = frozenset(
    {
        "unreachable",
        "storage_unreachable",
        "online_unavailable",
        "no_tracking",
        "database_unreachable",
        "database_busy",
    }
)
"""Codes of errors that come from the network or from a server that is away: trying again may help."""

_UNKNOWN = frozenset({"error", "unexpected"})


def is_final(error: PlatformError) -> bool:
    """Whether trying again cannot help: a named error of ours that is none of the network's."""
    return error.code not in TRANSIENT | _UNKNOWN


def meaning(err: BaseException, doing: str) -> PlatformError | None:
    """The named error that an exception of a library stands for; None when it is not known."""
    kinds = [f"{kind.__module__}.{kind.__qualname__}" for kind in type(err).__mro__]
    kinds = [kind.removeprefix("builtins.") for kind in kinds]
    said = f"{getattr(err, 'error_code', '')} {err}".strip()
    for known in _MEANINGS:
        if any(re.match(known.kind, kind) for kind in kinds) and re.search(known.says, said):
            return PlatformError(
                f"{doing}: {known.headline}",
                detail=f"{type(err).__name__}: {str(err)[:500]}",
                fix=known.fix,
                code=known.code,
                library=type(err).__module__.partition(".")[0],
            )
    return None
