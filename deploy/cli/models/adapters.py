"""``fairlead adapters``: adapters that a chat service answers with by name, beside the model they are over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from contracts.bundle import Bundle
from contracts.errors import PlatformError
from contracts.registry import Registry
from deploy.cli.profiles.adapters import adapter_settings
from deploy.cli.profiles.audit_record import note
from deploy.cli.profiles.loading import load_endpoints
from deploy.cli.profiles.log_salt import salt_of
from deploy.cli.terminal.output import emit, table

if TYPE_CHECKING:
    from rich.console import Console

    from contracts.adapter import Adapter

_TRIES = 20


def list_adapters(profile: str, model: str, as_json: bool) -> None:
    """The adapters of a model that have names, with their base."""
    from contracts.adapter import read_adapter
    from contracts.lora import rank_of
    from services.adapters.store import AdapterStore, bases_of, names_of

    folder = _folder(profile, model)
    found: list[dict[str, Any]] = []
    for name in names_of(folder, model):
        entity = AdapterStore.entity_of(name)
        for base in bases_of(folder, model, entity):
            kept = AdapterStore(folder, model, base).last(entity)
            adapter = read_adapter(kept.data)
            about = {"version": kept.version, "rank": rank_of(adapter), "bytes": len(kept.data)}
            found.append({"name": f"{model}:{name}", "base": base, **about})

    def show(out: Console) -> None:
        if not found:
            out.print(f"No adapters of {model}. Publish one: fairlead adapters publish {model}:VERSION --name NAME")
            return
        rows = table("name", "base", "version", "rank", "MB")
        for one in found:
            rows.add_row(one["name"], one["base"], str(one["version"]), str(one["rank"]), f"{one['bytes'] / 1e6:.1f}")
        out.print(rows)

    emit(found, as_json, show)


def publish_adapter(profile: str, ref: str, name: str, user: str, override: str, as_json: bool) -> None:
    """Put the adapter of a registered version where services of its model find it, under a name or for a person.

    Raises:
        PlatformError: ``code="bad_adapter"``, ``"gate_refused"``, ``"bad_option"``.
    """
    from services.adapters.store import AdapterStore
    from services.feedback.hashing import hashed

    if bool(name) == bool(user):
        fix = "give one of them: --name NAME, or --user KEY"
        raise PlatformError("whose adapter is it?", detail="--name and --user", fix=fix, code="bad_option")
    if name and not AdapterStore.is_name(name):
        detail = "it has small letters, digits and hyphens, at most 63"
        fix = "choose another one: --name NAME"
        raise PlatformError(f"{name!r} is no name of an adapter", detail=detail, fix=fix, code="bad_option")
    endpoints = load_endpoints(profile)
    registry = Registry(endpoints)
    found = registry.resolve(ref)
    if not found.gate_passed and not override:
        raise PlatformError(
            f"{found.name}:{found.version} was refused by its gate",
            detail="its card says why",
            fix="train again, or publish it all the same: --override REASON",
            code="gate_refused",
        )
    folder, bundle = _folder(profile, found.name), registry.fetch(ref)
    entity = AdapterStore.entity_of(name) if name else hashed(salt_of(endpoints, profile, found.name).encode(), user)
    made = _published(folder, found.name, entity, bundle)
    called = f"{found.name}:{name}" if name else found.name
    if override:
        note(endpoints, "publish", f"{found.name}:{found.version}", reason=override, evidence={"adapter": called})
    document = {
        "name": called,
        "base": made.base[:12],
        "version": made.version,
        "from": f"{found.name}:{found.version}",
    }

    def show(out: Console) -> None:
        whose = f"as {called}" if name else "for one user"
        out.print(
            f"Published {document['from']} {whose}: version {made.version}, over {document['base']}", markup=False
        )

    emit(document, as_json, show)


def remove_adapter(profile: str, model: str, name: str, as_json: bool) -> None:
    """Take an adapter with a name away, over every base."""
    from services.adapters.store import AdapterStore, names_of, remove_all

    folder = _folder(profile, model)
    if name not in names_of(folder, model):
        raise PlatformError(
            f"{model} has no adapter {name!r}",
            fix=f"see those that there are: fairlead adapters --model {model}",
            code="not_found",
        )
    count = remove_all(folder, model, AdapterStore.entity_of(name))
    settings = adapter_settings(profile, model)
    if settings.redis:
        from services.adapters.hot import forget_hot

        forget_hot(settings.redis, model, AdapterStore.entity_of(name), settings.wait_seconds)
    emit({"removed": count}, as_json, lambda out: out.print(f"Removed {model}:{name}", markup=False))


def _published(folder: str, model: str, entity: str, bundle: Bundle) -> Adapter:
    """The next version of an entity's adapter, of a bundle's."""
    from contracts.engines.llamacpp import ADAPTER, WEIGHTS, base_of
    from contracts.gguf import read_head
    from contracts.lora import lora_of
    from services.adapters.store import AdapterStore

    if not (bundle.model_path / ADAPTER).is_dir():
        raise PlatformError(
            f"{bundle.document.name} has no adapter",
            detail=f"its recipe is {bundle.document.recipe}",
            fix="train one: fairlead run chat --recipe lora",
            code="bad_adapter",
        )
    head, base = read_head(bundle.model_path / WEIGHTS), base_of(bundle)
    queries = int(head.of_model("attention.head_count"))
    heads = (queries, int(head.of_model("attention.head_count_kv", queries)))
    store = AdapterStore(folder, model, base)
    for _ in range(_TRIES):
        version = store.version(entity) + 1
        made = lora_of(bundle.model_path / ADAPTER, heads, base=base, entity=entity, version=version)
        if store.put(entity, version, made.to_bytes()):
            return made
    raise PlatformError("the adapter is changed by others all the time", fix="publish it again", code="adapter_busy")


def _folder(profile: str, model: str) -> str:
    folder = adapter_settings(profile, model).folder
    if not folder:
        raise PlatformError(
            f"there is no place for adapters of {model}",
            detail=f"config.adapters.folder of {model} is empty in profile {profile}",
            fix="set FAIRLEAD_SERVICE_ADAPTERS__FOLDER, or config.adapters.folder in the model's values file",
            code="bad_settings",
        )
    return folder
