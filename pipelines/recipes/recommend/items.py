"""Tables beside the interactions: what each item is like, and whatever else a recipe reads by names of columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from contracts.errors import PlatformError
from contracts.problems.ranking import SEPARATOR

if TYPE_CHECKING:
    import pyarrow as pa

    from pipelines.recipes.recommend.settings import ItemsConfig
    from pipelines.task import DataConfig


def read_items(config: ItemsConfig) -> dict[str, tuple[str, str]]:
    """Of each item its attributes, separated by ``|``, and its text: of the column ``text``, where the table has one.

    Raises:
        PlatformError: as ingest does, and ``code="bad_schema"`` where a column is missing.
    """
    found = dict[str, tuple[str, str]]()
    needed = ("item", "attributes", *(("text",) if "text" in config.data.columns else ()))
    for table in read_columns(config.source, config.data, needed, "items", ("text",)):
        columns = [table.column(name).to_pylist() for name in ("item", "attributes")]
        said = table.column("text").to_pylist() if "text" in table.column_names else [""] * table.num_rows
        for item, attributes, text in zip(*columns, said, strict=True):
            names_of = [part.strip() for part in str(attributes or "").split(SEPARATOR)]
            found[str(item)] = SEPARATOR.join(filter(None, names_of)), str(text or "")
    return found


def read_columns(
    source: str, data: DataConfig, wanted: Sequence[str], section: str, optional: Sequence[str] = ()
) -> Iterator[pa.Table]:
    """The columns of a file or folder of tables under the names that a recipe gives them.

    Args:
        section: of the configuration, which has `source` and `data`.  optional: columns that may be missing.

    Raises:
        PlatformError: as ingest does, and ``code="bad_schema"`` where a column is missing.
    """
    from pipelines.data import forgotten
    from pipelines.data.chunks import text_format
    from pipelines.data.origins import source_here
    from pipelines.data.sources import column_names, list_files, read_chunks

    form = text_format(data)
    given = {name: data.columns.get(name, name) for name in dict.fromkeys((*wanted, *optional))}
    with source_here(source) as here:
        for path in list_files(here):
            names = column_names(path, form)
            if absent := [name for name in wanted if given[name] not in names]:
                raise PlatformError(
                    f"the table of {section} has no column {given[absent[0]]!r}",
                    detail=f"{path.name} has: {', '.join(names)}",
                    fix=f"say which ones they are: --set {section}.data.columns.{absent[0]}=NAME",
                    code="bad_schema",
                    column=given[absent[0]],
                )
            kept = [name for name in given if given[name] in names]
            for chunk in read_chunks(path, names, form):
                if chunk.rejected:
                    bad = chunk.rejected[0]
                    raise PlatformError(
                        f"table of {section} {path.name}: row {bad.row} cannot be read",
                        detail=bad.reason,
                        fix=f"correct the row, or {section}.data (header, delimiter, quoted)",
                        code="bad_source",
                        row=bad.row,
                    )
                table = chunk.table.select([given[name] for name in kept]).rename_columns(kept)
                yield forgotten.without(replace(chunk, table=table)).table
