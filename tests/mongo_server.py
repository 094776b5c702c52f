"""A MongoDB for tests: a process beside them that speaks its protocol, with what it stores in a folder."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from contracts.ports import free_port

LOGIN = ("reader", "s3cret/word")


class MongoServer:
    """One server; `stop` and `start` keep its port and its documents. replica: it says that it is a replica set."""

    def __init__(self, folder: Path, *options: str, replica: bool = False) -> None:
        found = shutil.which("secantusd-py", path=f"{Path(sys.executable).parent}")
        if found is None:
            pytest.skip("no MongoDB server for tests: pip install secantusdb (extra dev)")
        self.port, self._options = free_port(), options
        self._command = [found, "--host", "127.0.0.1", "--port", str(self.port), "--storage-path", str(folder)]
        self._command += [] if replica else ["--standalone"]
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self, *options: str) -> None:
        """Start it, with more options."""
        command = [*self._command, "--sync-on-commit", *self._options, *options]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self._wait()

    def _wait(self) -> None:
        import pymongo
        from pymongo.errors import PyMongoError

        end = time.monotonic() + 60
        with pymongo.MongoClient("127.0.0.1", self.port, serverSelectionTimeoutMS=500) as client:
            while time.monotonic() < end:
                with contextlib.suppress(PyMongoError):
                    client.admin.command("ping")
                    return
                time.sleep(0.05)
        raise AssertionError("the server did not start")

    def stop(self, kill: bool = False) -> None:
        """End it, as a lost machine does with `kill`."""
        if self._process is not None:
            (self._process.kill if kill else self._process.terminate)()
            self._process.wait(30)
            self._process = None

    def address(self, collection: str, **options: str) -> str:
        """The address of a collection of database ``shop``."""
        from urllib.parse import urlencode

        query = f"?{urlencode(options)}" if options else ""
        return f"mongodb://127.0.0.1:{self.port}/shop/{collection}{query}"

    @contextlib.contextmanager
    def emptied(self) -> Any:
        """Database ``shop`` without any collection."""
        with self.database() as database:
            for name in database.list_collection_names():
                database.drop_collection(name)
            yield database

    @contextlib.contextmanager
    def database(self) -> Any:
        """Database ``shop``."""
        import pymongo

        with pymongo.MongoClient("127.0.0.1", self.port, serverSelectionTimeoutMS=10_000) as client:
            yield client["shop"]
