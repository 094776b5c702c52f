"""What a test leaves behind is put right: variables of this process, and volumes where a cluster has a fixed number."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.spaces import cluster_environment, kubectl


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests in images that take longest to build come last: they may still be built when the first ones run."""
    items.sort(key=lambda item: str(getattr(getattr(item, "module", None), "IMAGE", "")).endswith("-torch"))


@pytest.fixture(scope="session", autouse=True)
def free_volumes() -> None:
    """Empty the local volumes whose claims are gone; a provisioner, where there is one, does it by itself."""
    if not os.environ.get("FAIRLEAD_TEST_CLUSTER"):  # nobody else's volumes are ours to empty
        return
    os.environ.update(cluster_environment())
    for volume in json.loads(kubectl("get", "pv", "-o", "json", check=False) or '{"items": []}')["items"]:
        folder = Path(volume["spec"].get("local", {}).get("path", "/nonexistent"))
        if volume["status"]["phase"] not in ("Failed", "Released") or not folder.is_dir():
            continue
        for inner in folder.iterdir():
            shutil.rmtree(inner) if inner.is_dir() else inner.unlink()
        kubectl("patch", "pv", volume["metadata"]["name"], "--type=merge", "-p", '{"spec": {"claimRef": null}}')


@pytest.fixture(autouse=True)
def own_storage() -> Iterator[None]:
    """Take the S3 variables away that `use_storage` has set: the next test has another server, in another namespace."""
    before = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    yield
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]
    os.environ.update(before)
