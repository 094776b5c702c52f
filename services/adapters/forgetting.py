"""Takes the adapters of one entity away, everywhere: the right to be forgotten."""

from __future__ import annotations

from contracts.errors import PlatformError
from services.adapters.hot import forget_hot
from services.adapters.store import bases_of, remove_all
from services.feedback.hashing import hashed
from services.settings import AdapterSettings


def forget_adapters(settings: AdapterSettings, model: str, key: str, salt: str, *, dry_run: bool = False) -> int:
    """Remove the adapters of an entity over every base from their store and from Redis; how many there were.

    ``fairlead predictions forget`` and ``fairlead forget`` call this. Servers that hold one in memory drop it within
    `AdapterSettings.fresh_seconds`. Answers that were given before teach nothing any more, where there is a Redis.

    Args:
        settings: of the service: where its adapters are; an empty folder has none.
        key: whose they are, as requests name it: the user of recommendations, or the value of `settings.entity`.
        salt: of the hashes, the one of the log of predictions.
        dry_run: count alone.

    Raises:
        PlatformError: the storage's own, or ``code="online_unavailable"``: Redis may have copies; it is safe to repeat.
    """
    from redis.exceptions import RedisError

    if not settings.folder:
        return 0
    entity = hashed(salt.encode(), key)
    if dry_run:
        return len(bases_of(settings.folder, model, entity))
    try:
        if settings.redis:  # first, so that answers of before teach nothing from now on
            forget_hot(settings.redis, model, entity, settings.wait_seconds)
        count = remove_all(settings.folder, model, entity)
        if settings.redis:  # what was copied there meanwhile
            forget_hot(settings.redis, model, entity, settings.wait_seconds)
    except (RedisError, OSError) as err:
        raise PlatformError(
            "the adapters could not all be removed",
            detail=f"{type(err).__name__}: {err}",
            fix="check that Redis runs and can be reached, then forget again",
            code="online_unavailable",
        ) from err
    return count
