"""Annotations of predictions as documents of a MongoDB: ``MODEL.annotations`` in the database of the address."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC
from itertools import islice
from typing import Any

from contracts import mongodb

_AT_ONCE = 1_000  # documents of one request


class Annotations:
    """The annotations of one model's predictions.

    Args:
        address: ``mongodb://host/database``.

    Raises:
        PlatformError: ``code="bad_address"``.
    """

    def __init__(self, address: str, model: str) -> None:
        self._address, self._name = mongodb.parse_database(address), f"{model}.annotations"

    def write(self, documents: Sequence[Mapping[str, Any]]) -> int:
        """Keep those that are not there yet; returns how many."""
        operation, new = mongodb.driver("pymongo").UpdateOne, 0
        with mongodb.opened(self._address) as collection:
            kept = collection.database[self._name]
            kept.create_index("prediction")
            for at in range(0, len(documents), _AT_ONCE):
                batch = {each["_id"]: each for each in documents[at : at + _AT_ONCE]}
                there = {each["_id"] for each in kept.find({"_id": {"$in": list(batch)}}, {"_id": 1})}
                wanted = [operation({"_id": name}, {"$setOnInsert": each}, upsert=True) for name, each in batch.items()]
                mongodb.write(kept, self._address, wanted)
                new += len(batch) - len(there)
        return new

    def of(self, prediction: str) -> list[dict[str, Any]]:
        """``_id``, ``time`` and ``annotation`` of all of a prediction, by time."""
        with mongodb.opened(self._address) as collection:
            found = collection.database[self._name].find({"prediction": prediction}).sort([("time", 1), ("_id", 1)])
            return [
                {"_id": each["_id"], "time": each["time"].replace(tzinfo=UTC), "annotation": each["annotation"]}
                for each in found
            ]

    def count(self, predictions: Collection[str]) -> int:
        """How many there are of these predictions."""
        return self._each(predictions, lambda kept, wanted: int(kept.count_documents(wanted)))

    def remove(self, predictions: Collection[str]) -> int:
        """Remove those of these predictions; returns how many there were."""
        return self._each(predictions, lambda kept, wanted: int(kept.delete_many(wanted).deleted_count))

    def _each(self, predictions: Collection[str], call: Any) -> int:
        names, found = iter(sorted(predictions)), 0
        with mongodb.opened(self._address) as collection:
            while part := list(islice(names, _AT_ONCE)):
                found += call(collection.database[self._name], {"prediction": {"$in": part}})
        return found
