"""The table of items: what each is like."""

from __future__ import annotations

from typing import TYPE_CHECKING

from contracts.errors import PlatformError
from contracts.problems.ranking import SEPARATOR

if TYPE_CHECKING:
    from pipelines.recipes.recommend.settings import ItemsConfig


def read_items(config: ItemsConfig) -> dict[str, str]:
    """The attributes of each item, separated by ``|``.

    Raises:
        PlatformError: as ingest does, and ``code="bad_schema"`` where a column is missing.
    """
    from pipelines.data.chunks import text_format
    from pipelines.data.sources import column_names, list_files, read_chunks

    form, found = text_format(config.data), dict[str, str]()
    wanted = {name: config.data.columns.get(name, name) for name in ("item", "attributes")}
    for path in list_files(config.source):
        names = column_names(path, form)
        if absent := [name for name in wanted.values() if name not in names]:
            raise PlatformError(
                f"the table of items has no column {absent[0]!r}",
                detail=f"{path.name} has: {', '.join(names)}",
                fix="say which ones they are: --set items.data.columns.item=NAME, items.data.columns.attributes=NAME",
                code="bad_schema",
                column=absent[0],
            )
        for chunk in read_chunks(path, names, form):
            if chunk.rejected:
                bad = chunk.rejected[0]
                raise PlatformError(
                    f"table of items {path.name}: row {bad.row} cannot be read",
                    detail=bad.reason,
                    fix="correct the row, or items.data (header, delimiter, quoted)",
                    code="bad_source",
                    row=bad.row,
                )
            columns = (chunk.table.column(name).to_pylist() for name in wanted.values())
            for item, attributes in zip(*columns, strict=True):
                names_of = [part.strip() for part in str(attributes or "").split(SEPARATOR)]
                found[str(item)] = SEPARATOR.join(filter(None, names_of))
    return found
