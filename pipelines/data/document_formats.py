"""PDF and Word documents as blocks; what cannot be read whole, or could run, is refused and says why."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from contracts.errors import PlatformError
from pipelines.data.document_blocks import (
    TEXT_FORMATS,
    Builder,
    Document,
    RefusedError,
    decoded,
    repeated,
)

MAX_BYTES = 64 << 20  # of one file
_UNPACKED = 256 << 20  # of the parts of a Word document
_HEADING = re.compile(r"(?:heading|überschrift|标题)\s*(\d)", re.IGNORECASE)
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_REFUSED = {
    ".doc": "is an old Word file: save it as .docx",
    ".docm": "is a Word file with macros: save it as .docx",
    ".dotm": "is a Word template with macros: save it as .docx",
    ".rtf": "is RTF: save it as .docx",
    ".odt": "is OpenDocument: save it as .docx",
}
SUFFIXES = (*TEXT_FORMATS, ".pdf", ".docx")
KNOWN = (*SUFFIXES, *_REFUSED)


def read_document(name: str, content: bytes, max_pages: int) -> Document:
    """The document of a file; without a title of its own it has the file's name.

    Raises:
        RefusedError: saying why it is not read.
        PlatformError: ``code="missing_package"``.
    """
    suffix = PurePosixPath(name).suffix.lower()
    if suffix in _REFUSED:
        raise RefusedError(_REFUSED[suffix])
    if suffix not in SUFFIXES:
        raise RefusedError(f"is none of the documents that are read: {', '.join(SUFFIXES)}")
    if len(content) > MAX_BYTES:
        raise RefusedError(f"is larger than {MAX_BYTES >> 20} MB")
    if not content.strip():
        raise RefusedError("is empty")
    if suffix == ".pdf":
        found = _of_pdf(content, max_pages)
    elif suffix == ".docx":
        found = _of_word(content)
    else:
        found = TEXT_FORMATS[suffix](decoded(content))
    if not found.blocks:
        raise RefusedError("has no text")
    found.title = found.title or PurePosixPath(name).stem
    return found


def _of_pdf(content: bytes, max_pages: int) -> Document:
    """Paragraphs of each page."""
    try:
        import pypdf
        from pypdf.errors import PyPdfError
    except ImportError as err:
        raise _missing("PDF", err) from err
    try:
        reader = pypdf.PdfReader(io.BytesIO(content), strict=False)
        if reader.is_encrypted and not reader.decrypt(""):
            raise RefusedError("is encrypted: save it without a password")
        pages = len(reader.pages)
        if pages > max_pages:
            raise RefusedError(f"has {pages:,} pages; at most {max_pages:,} are read, see documents.max_pages")
        if _has_scripts(reader):
            raise RefusedError("has scripts, which documents need not have: print it to a new PDF")
        texts = [page.extract_text() or "" for page in reader.pages]
        made = Builder()
        made.document.title = str(getattr(reader.metadata, "title", "") or "").strip()[:200]
    except RefusedError:
        raise
    except (PyPdfError, ValueError, KeyError, IndexError, TypeError, AttributeError, OSError, RecursionError,
            NotImplementedError, AssertionError, OverflowError) as err:  # fmt: skip
        raise RefusedError(f"is cut off or damaged: {type(err).__name__} {str(err)[:60]}".rstrip()) from None
    if not any(sign.isalnum() for text in texts for sign in text):
        raise RefusedError("has pages and no text, as scans have: recognise its text first (OCR)")
    for number, text in enumerate(repeated(texts), 1):
        for part in re.split(r"\n\s*\n", text):
            made.paragraph(_unbroken(part), number)
    return made.document


def _has_scripts(reader: Any) -> bool:
    """JavaScript, or something that is to be started, when the document is opened."""
    root = reader.trailer["/Root"]
    names = root.get("/Names")
    action = root.get("/OpenAction")
    action = action.get_object() if action is not None else None
    kind = action.get("/S") if isinstance(action, dict) else None
    return kind in ("/JavaScript", "/Launch") or (names is not None and "/JavaScript" in names.get_object())


def _unbroken(text: str) -> str:
    """Lines of a paragraph as one; a word that was divided becomes whole."""
    text = re.sub(r"(?<=[a-z])-\n(?=[a-z])", "", text)
    text = re.sub(r"(?<=[\u4e00-\u9fff，。；：、])\n(?=[\u4e00-\u9fff])", "", text)
    return text.replace("\n", " ")


def _of_word(content: bytes) -> Document:
    """Paragraphs by their headings, and rows of tables."""
    try:
        import docx
    except ImportError as err:
        raise _missing("Word", err) from err
    if content.startswith(_OLE):
        raise RefusedError("is encrypted, or an old Word file: save it as .docx without a password")
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as parts:
            names = parts.namelist()
            if any(name.lower().endswith(("vbaproject.bin", "vbadata.xml")) for name in names):
                raise RefusedError("has macros: save it as .docx without them")
            if sum(part.file_size for part in parts.infolist()) > _UNPACKED:
                raise RefusedError(f"is larger than {_UNPACKED >> 20} MB when it is unpacked")
        found = docx.Document(io.BytesIO(content))
        made = Builder()
        for style, text in _paragraphs(found):
            if style == "title":
                made.document.title = made.document.title or text.strip()[:200]
            elif level := _HEADING.match(style):
                made.heading(int(level[1]), text)
            else:
                made.paragraph(text)
    except RefusedError:
        raise
    except Exception as err:  # noqa: BLE001 - whatever a damaged file makes of its libraries
        raise RefusedError(f"is cut off or damaged: {type(err).__name__} {str(err)[:60]}".rstrip()) from None
    return made.document


def _paragraphs(found: Any) -> Iterator[tuple[str, str]]:
    """The style of each paragraph in small letters, and its text; a row of a table is one."""
    for part in found.iter_inner_content():
        if hasattr(part, "rows"):
            for row in part.rows:
                yield "table", " ".join(dict.fromkeys(cell.text.strip() for cell in row.cells if cell.text.strip()))
        else:
            yield (part.style.name or "").lower() if part.style is not None else "", part.text


def _missing(what: str, err: ImportError) -> PlatformError:
    return PlatformError(
        f"{what} documents cannot be read: {err.name} is not installed",
        fix="pip install 'fairlead[documents]'",
        code="missing_package",
    )
