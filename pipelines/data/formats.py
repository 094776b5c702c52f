"""Files that are no plain text: packed ones, workbooks of Excel, and JSON lines."""

from __future__ import annotations

import json
import re
import shlex
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from contracts.errors import PlatformError

_MAGIC = {b"\x1f\x8b": "gzip", b"BZh": "bz2", b"\x28\xb5\x2f\xfd": "zstd", b"PK\x03\x04": "zip", b"PK\x05\x06": "zip"}
_SUFFIXES = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd", ".zip": "zip", ".xlsx": "zip", ".xlsm": "zip"}
PACKED = tuple(suffix for suffix in _SUFFIXES if not suffix.startswith(".x"))


def packing(path: Path) -> str:
    """How a file is packed, by its first bytes: gzip, bz2, zstd or zip; "" when it is not.

    Raises:
        PlatformError: the name promises a packed file.
    """
    with path.open("rb") as stream:
        start = stream.read(4)
    found = next((kind for magic, kind in _MAGIC.items() if start.startswith(magic)), "")
    promised = _SUFFIXES.get(path.suffix.lower(), "")
    if promised and start and not found:
        raise PlatformError(
            f"{path.name} is not {promised} in spite of its name",
            detail=f"it begins with {start!r}",
            fix=f"if it is plain text, name it {path.with_suffix('').name}; else fetch it again",
            code="bad_source",
            file=str(path),
        )
    return found


_NO_TEXT = {
    b"PAR1": ("a Parquet file", ".parquet"),
    b"\xd0\xcf\x11\xe0": ("a workbook of Excel 97 or another old Office document", ""),
    b"SQLite format 3": ("a database of SQLite", ""),
    b"%PDF-": ("a PDF", ""),
    **{magic: (f"packed twice, the second time as {kind}", "") for magic, kind in _MAGIC.items()},
}
_JSON = re.compile(rb'(?:\xef\xbb\xbf)?\s*(\[\s*)?\{\s*(?:"[^"]*"\s*:|\})')


def refuse_other_than_text(path: Path, start: bytes) -> None:
    """Name what a file really is when its unpacked bytes do not begin as a table of text does.

    Raises:
        PlatformError: ``code="bad_source"``, with what to do to have it read.
    """
    what, suffix = next((found for magic, found in _NO_TEXT.items() if start.startswith(magic)), ("", ""))
    fix = "save it as a table, for example as CSV"
    if found := _JSON.match(start):
        what, suffix = ("a list in JSON", "") if found[1] else ("JSON lines", ".jsonl")
        fix = f"jq -c '.[]' {shlex.quote(str(path))} > {shlex.quote(str(path.with_suffix('.jsonl')))}"
    if packing(path):
        what, fix = what and f"{what}, packed", "unpack it, and give the file that is in it"
    elif suffix:
        fix = _rename(path, suffix)
    if what:
        raise PlatformError(f"{path.name} is {what}", fix=fix, code="bad_source", file=str(path))


def _rename(path: Path, suffix: str) -> str:
    return f"name it {suffix}: mv {shlex.quote(str(path))} {shlex.quote(str(path.with_suffix(suffix)))}"


def open_unpacked(path: Path) -> Any:
    """A stream of a file's bytes, unpacked; the one data file of a zip archive."""
    import pyarrow as pa

    kind = packing(path)
    if kind != "zip":
        return pa.input_stream(str(path), compression=kind or None)
    with named(path):
        archive = zipfile.ZipFile(path)
        return archive.open(_member(archive, path))


def _member(archive: zipfile.ZipFile, path: Path) -> str:
    names = [name for name in archive.namelist() if not name.endswith("/") and not _hidden(name)]
    if "xl/workbook.xml" in names:
        raise PlatformError(
            f"{path.name} is a workbook of Excel", fix=_rename(path, ".xlsx"), code="bad_source", file=str(path)
        )
    if len(names) != 1:
        shown = ", ".join(names[:10]) + (" ..." if len(names) > 10 else "")
        raise PlatformError(
            f"{path.name} has {len(names) or 'no'} data files, expected one",
            detail=f"in it: {shown or 'nothing'}",
            fix="unpack it, and give the file or the folder of files",
            code="bad_source",
            file=str(path),
        )
    return names[0]


def _hidden(name: str) -> bool:
    return name.startswith("__MACOSX/") or name.rpartition("/")[2].startswith((".", "_"))


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Name the file in errors of unpacking: it is cut off, damaged, or locked with a password."""
    try:
        yield
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, OSError, RuntimeError) as err:
        if isinstance(err, OSError) and err.errno is not None:
            raise
        locked = "encrypted" in str(err)
        raise PlatformError(
            f"{path.name} is {'locked with a password' if locked else 'damaged or cut off'}",
            detail=str(err)[:300],
            fix="unpack it with its password" if locked else "fetch or write it again",
            code="bad_source",
            file=str(path),
        ) from err


def read_excel(path: Path) -> Iterator[list[str]]:
    """The rows of the first sheet that has any, as text: whole numbers without a point, moments in ISO 8601."""
    try:
        from python_calamine import CalamineError, load_workbook
    except ImportError as err:
        raise PlatformError(
            f"{path.name}: reading Excel needs the package python-calamine",
            fix="pip install python-calamine, or save the sheet as CSV",
            code="missing_package",
        ) from err
    try:
        workbook = load_workbook(str(path))
        sheets = [workbook.get_sheet_by_name(name) for name in workbook.sheet_names]
    except (CalamineError, OSError) as err:
        raise PlatformError(
            f"{path.name} is not a readable workbook", detail=str(err)[:300], fix="save it again", code="bad_source"
        ) from err
    sheet = next((sheet for sheet in sheets if sheet.height), None)
    rows = iter(()) if sheet is None else sheet.iter_rows()
    return ([_text(cell) for cell in row] for row in rows)


def _text(cell: Any) -> str:
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if isinstance(cell, float):
        return str(int(cell)) if cell.is_integer() and abs(cell) < 2**53 else repr(cell)
    return cell.isoformat() if hasattr(cell, "isoformat") else str(cell)


def json_columns(path: Path) -> list[str]:
    """Keys of all objects of a file of JSON lines, in the order in which they come up."""
    names: dict[str, None] = {}
    for _, row, _ in read_json_lines(path):
        names.update(dict.fromkeys(row))
    return list(names)


def read_json_lines(path: Path) -> Iterator[tuple[int, dict[str, str], str]]:
    """Number of each line with text (1 = the first), its values as text, and what is wrong with it ("" when nothing).

    Numbers stay as they are written; null is an empty text, and what is nested stays JSON.
    """
    number = 0
    with named(path), open_unpacked(path) as stream:
        for line in lines_of(stream):
            if not line.strip():
                continue
            number += 1
            try:
                row = json.loads(
                    line.decode("utf-8-sig"), parse_float=_Number, parse_int=_Number, parse_constant=_Number
                )
            except ValueError as err:
                yield number, {}, f"not JSON in UTF-8: {str(err)[:100]}"
                continue
            if isinstance(row, dict):
                yield number, {str(key): _json_text(value) for key, value in row.items()}, ""
            else:
                yield number, {}, "not an object of JSON"


class _Number(str):
    """A number as it is written."""


def _json_text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return str(value)
    return _nested(value)


def _nested(value: Any) -> str:
    """JSON whose numbers stay as they are written."""
    if isinstance(value, _Number):
        return str(value)
    if isinstance(value, list):
        return f"[{', '.join(map(_nested, value))}]"
    if isinstance(value, dict):
        return (
            f"{{{', '.join(f'{json.dumps(key, ensure_ascii=False)}: {_nested(each)}' for key, each in value.items())}}}"
        )
    return json.dumps(value, ensure_ascii=False)


def lines_of(stream: Any) -> Iterator[bytes]:
    """Lines without their ends, the last one also where it is empty."""
    rest = b""
    while block := stream.read(1 << 20):
        *whole, rest = (rest + block).split(b"\n")
        yield from whole
    yield rest
