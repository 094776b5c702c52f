"""Lists of items for people, by a `contracts.recommender`: arrays and names, in numpy alone.

``model/`` has ``recommend.json`` (`RecommendSpec`), ``ids.json`` (names of items, attributes and people) and a ``.npy``
for each array; ``histories.indptr`` and ``histories.indices`` are the items of each person, see `Recommender.history`.
Of many items there is an index, see `contracts.nearest`. All of them are mapped, and read in place.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ValidationError

from contracts import tower
from contracts.bundle import Bundle, Input
from contracts.engine import EngineOptions, EngineSpec, Reason
from contracts.errors import PlatformError
from contracts.groups import PEOPLE, Groups, said_groups
from contracts.nearest import read_nearest
from contracts.problems.ranking import OF_GROUP, SEPARATOR, listed
from contracts.providers import Exposure
from contracts.ranker import SPEC as RANKER
from contracts.ranker import read_ranker
from contracts.recommender import Recommender, RecommendSpec
from contracts.taste import Taste

if TYPE_CHECKING:
    from numpy.typing import NDArray

Live = Callable[[str, Sequence[str]], "tuple[Sequence[str], NDArray[np.float32]] | None"]
"""Given a person and items: what the person clicked of late, and `contracts.ranking_features.WINDOWED` of the items."""
SPEC, IDS = "recommend.json", "ids.json"
HISTORIES = ("histories.indptr", "histories.indices")
_VIEWS = 16  # groups whose trend is held, that of all items each


def request_inputs(spec: RecommendSpec, kinds: Sequence[str] = ()) -> list[Input]:
    """What a row asks for: the inputs of every model of this engine, all optional.

    Args:
        kinds: of groups that people are told apart by, such as region; none: rows say no group.
    """
    several = f"separated by {SEPARATOR}"
    fields = [
        Input(name="user", dtype="string", default="", description="who asks; empty or unknown: only `items` count"),
        Input(
            name="items", dtype="string", default="", description=f"items of the session, the latest last, {several}"
        ),
        Input(
            name="k", dtype="int64", default=spec.k, minimum=1, maximum=spec.longest, description="items of the list"
        ),
        Input(
            name="diversity",
            dtype="float64",
            default=spec.diversity,
            minimum=0,
            maximum=1,
            description="0: the most relevant items; 1: items as different as can be",
        ),
        Input(name="exclude", dtype="string", default="", description=f"items that must not be listed, {several}"),
        Input(
            name="attributes",
            dtype="string",
            default="",
            description=f"only items with one of these attributes are listed, {several}; empty: all",
        ),
        Input(
            name="explore",
            dtype="int64",
            default=0,
            minimum=0,
            maximum=1,
            description="1: what the recipe leaves to chance is left to it, and providers get what they are owed",
        ),
        Input(
            name="age",
            dtype="float64",
            default=0,
            minimum=0,
            maximum=150,
            description="of who asks, in years; items with an age limit are listed from it on; 0: not known",
        ),
    ]
    if kinds:
        said = f"{', '.join(f'{kind}{OF_GROUP}NAME' for kind in kinds)}, {several}"
        about = f"what is said of who asks, {said}; empty: what is known of the user"
        fields.append(Input(name="group", dtype="string", default="", description=about))
    return [item.model_copy(update={"optional": True}) for item in fields]


class RecommendEngine:
    """See `contracts.engine.Engine`; the answer to a row does not depend on the others."""

    def __init__(self, bundle: Bundle) -> None:
        self.model, self.users, self._histories = read_model(bundle.model_path)
        self._bundle = bundle
        self.live: Live | None = None  # reads the feature store, for rows that are for people
        self._near = lru_cache(maxsize=_VIEWS)(self.model.of_group)
        self._denied = np.zeros(len(self.model.items), dtype=bool)
        arrays, owed = self.model.arrays, self.model.spec.exposure > 0
        self.exposure = Exposure(np.asarray(arrays["provider"], np.int64)) if owed and "provider" in arrays else None

    @cached_property
    def plan(self) -> Mapping[str, Any] | None:
        """Of the feature store, where the model was trained with one."""
        found: Mapping[str, Any] | None = self._bundle.read_json("features.json")
        return found

    @cached_property
    def places(self) -> dict[str, int]:
        """The place of each item in the arrays."""
        return {item: at for at, item in enumerate(self.model.items)}

    @cached_property
    def _people(self) -> dict[str, int]:
        return {user: at for at, user in enumerate(self.users)}

    @cached_property
    def _attributes(self) -> dict[str, int]:
        return {name: at for at, name in enumerate(self.model.attributes)}

    def knows(self, user: str) -> bool:
        """Whether there is a history of this person."""
        at = self._people.get(user)
        return at is not None and bool(self._histories[0][at + 1] > self._histories[0][at])

    def group_of(self, user: str, said: str) -> tuple[int, list[str]]:
        """The code of the group that counts for a person, and flags, see `contracts.groups.Groups.of`.

        Args:
            said: as the input `group`.
        """
        at, groups = self._people.get(user), self.model.groups
        known = self.model.arrays[PEOPLE][at].tolist() if groups.names and at is not None else None
        return groups.of(known, said_groups(said))

    def deny(self, items: Iterable[str]) -> None:
        """List none of these items from now on; those that were denied before may be listed again."""
        denied = np.zeros(len(self.model.items), dtype=bool)
        denied[self._of(items)] = True
        self._denied = denied

    def predict(
        self, columns: Mapping[str, NDArray[Any]], tastes: Sequence[Taste] | None = None
    ) -> NDArray[np.object_]:
        """One list per row; with `tastes`, one of each row's person, in their order."""
        names = ("user", "items", "k", "diversity", "exclude", "attributes", "explore", "age", "group")
        count = len(columns["user"])
        given = {
            "explore": np.zeros(count),
            "age": np.zeros(count),
            "group": np.full(count, ""),
            **columns,
        }  # models without groups and bundles of earlier releases do not ask for it
        rows: list[tuple[Any, ...]] = list(zip(*(given[name] for name in names), strict=True))
        found = np.empty(len(rows), dtype=object)
        for at, row in enumerate(rows):
            found[at] = self._answer(*row, taste=None if tastes is None else tastes[at])
        return found

    def explain(self, columns: Mapping[str, NDArray[Any]], top: int) -> list[list[Reason]]:
        """None: each item of a list says what speaks for it."""
        detail = "each item of an answer says what speaks for it: why, because"
        raise PlatformError("this model gives no other reasons", detail=detail, code="not_explainable")

    def _answer(
        self,
        user: str,
        items: str,
        k: float,
        diversity: float,
        exclude: str,
        attributes: str,
        explore: float,
        age: float,
        group: str,
        *,
        taste: Taste | None,
    ) -> Any:
        spec, taken = self.model.spec, () if taste is None else taste.taken
        history, blocked = self.model.history([*self._stored(user), *taken, *self._of(listed(items))])
        blocked |= self._denied
        blocked[self._of(listed(exclude))] = True
        if attributes:
            blocked |= ~self._with(listed(attributes))
        if "age" in self.model.arrays:
            blocked |= self.model.arrays["age"] > (0.0 if math.isnan(age) else age)
        size = spec.k if math.isnan(k) else int(min(max(k, 0), spec.longest))
        level = spec.diversity if math.isnan(diversity) else float(min(max(diversity, 0.0), 1.0))
        live = explore == 1
        rng = np.random.default_rng() if live and spec.explore != "none" else None
        shown = self.exposure if live else None
        read = partial(self._read, self.live, user) if live and self.live is not None else None
        person = self._people.get(user, -1)
        model = self._near(self.group_of(user, group)[0])
        return model.ranked(history, blocked, size, level, taste, rng, shown, person, read)

    def _read(self, live: Live, user: str, pool: NDArray[np.int64]) -> tuple[list[int], NDArray[np.float32]] | None:
        """What the feature store says of a person and of candidates, see `contracts.recommender.Live`."""
        items = self.model.items
        found = live(user, [items[at] for at in pool.tolist()])
        return None if found is None else (self._of(found[0]), found[1])

    def _stored(self, user: str) -> list[int]:
        """What is known of a person, see `Recommender.history`."""
        at = self._people.get(user)
        if at is None:
            return []
        indptr, indices = self._histories
        found: list[int] = indices[indptr[at] : indptr[at + 1]].tolist()
        return found

    def _of(self, items: Iterable[str]) -> list[int]:
        """The places of the items that there are."""
        places = self.places
        return [places[item] for item in items if item in places]

    def _with(self, attributes: Sequence[str]) -> NDArray[np.bool_]:
        """The items that have one of these attributes."""
        if not self.model.spec.attributed:
            return np.zeros(len(self.model.items), dtype=bool)
        wanted = [self._attributes[name] for name in attributes if name in self._attributes]
        return np.asarray((self.model.arrays["vectors"][:, wanted] > 0).any(axis=1))


def write_model(folder: Path, model: Recommender, users: Sequence[str], histories: Sequence[Sequence[int]]) -> None:
    """Write what `read_model` reads; `histories` are those of the people, see `Recommender.history`.

    The file of a ranker's own model is its maker's to write.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / SPEC).write_text(model.spec.model_dump_json(indent=1) + "\n", encoding="utf-8")
    groups = {kind: list(names) for kind, names in model.groups.names.items()}
    ids = {"items": list(model.items), "attributes": list(model.attributes), "users": list(users), "groups": groups}
    (folder / IDS).write_text(json.dumps(ids, ensure_ascii=False) + "\n", encoding="utf-8")
    ends = np.cumsum([0, *map(len, histories)], dtype=np.int64)
    flat = np.array([item for one in histories for item in one], dtype=np.int32)
    read: dict[str, NDArray[Any]] = dict(zip(HISTORIES, (ends, flat), strict=True))
    if model.ranker is not None:
        (folder / RANKER).write_text(model.ranker.spec.model_dump_json(indent=1) + "\n", encoding="utf-8")
        read |= model.ranker.arrays
    for name, array in {**model.arrays, **read}.items():
        np.save(folder / f"{name}.npy", array, allow_pickle=False)


def read_model(folder: Path) -> tuple[Recommender, list[str], tuple[NDArray[Any], NDArray[Any]]]:
    """The model of a folder, the people that it knows, and their histories.

    Raises:
        PlatformError: ``code="bad_bundle"``.
    """
    try:
        spec = RecommendSpec.model_validate_json((folder / SPEC).read_bytes())
        ids = json.loads((folder / IDS).read_text(encoding="utf-8"))
        arrays = {file.stem: _mapped(file) for file in folder.glob("*.npy")}
        histories = (arrays.pop(HISTORIES[0]), arrays.pop(HISTORIES[1]))
        ranker = read_ranker(folder, arrays, len(ids["items"]))
        nearest = read_nearest(folder, arrays.get("factors"))
        groups = Groups(ids.get("groups", {}))
        model = Recommender(spec, ids["items"], ids["attributes"], arrays, ranker, nearest=nearest, groups=groups)
        _check(model, ids["users"], histories)
    except (OSError, ValidationError, ValueError, KeyError) as err:
        raise PlatformError(
            f"recommender refused: {folder}", detail=str(err), fix="publish the model again", code="bad_bundle"
        ) from err
    return model, ids["users"], histories


def _mapped(file: Path) -> NDArray[Any]:
    """An array that is read where it lies; as a plain one, which is quicker to take parts of."""
    return np.asarray(np.load(file, mmap_mode="r", allow_pickle=False))


def _check(model: Recommender, users: Sequence[str], histories: tuple[NDArray[Any], NDArray[Any]]) -> None:
    """Refuse arrays of another catalogue.

    Raises:
        ValueError: naming the first that does not fit; KeyError: one is missing.
    """
    items, method = len(model.items), model.spec.method
    rows = {"people": items, "trend": items, "fresh": items, "vectors": items}
    factors = {"factors": items}
    rows |= {"similar": {"similar.indptr": items + 1}, "factors": factors, "tower": factors, "popular": {}}[method]
    for name, wanted in rows.items():
        if len(model.arrays[name]) != wanted:
            raise ValueError(f"{name} has {len(model.arrays[name])} rows, not {wanted}: it is of another catalogue")
    if method == "tower":
        tower.check(model.arrays)
    model.groups.check(model.arrays, items, len(users))
    if len(histories[0]) != len(users) + 1:
        raise ValueError(f"there are {len(histories[0]) - 1} histories of {len(users)} people")
    named = {"histories": histories}
    if method == "similar":
        named["similar"] = (model.arrays["similar.indptr"], model.arrays["similar.indices"])
    for name, (ends, places) in named.items():
        inside = not len(places) or -items <= int(places.min()) <= int(places.max()) < items
        if int(ends[-1]) != len(places) or not inside:
            raise ValueError(f"{name} names items that are not in the catalogue")


def load(bundle: Bundle, options: EngineOptions) -> RecommendEngine:
    """See `contracts.engines.load_engine`."""
    return RecommendEngine(bundle)


ENGINE = EngineSpec(name="recommend", modality="recommend", extra="recommend", batch_rows=256, load=load)
