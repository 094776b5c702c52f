"""Where things live. A profile is one of these documents; nothing else differs between laptop and cluster."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from contracts.errors import PlatformError
from contracts.settings import Settings


class Endpoints(Settings):
    """Addresses of data, runs, tracking, bundles and features.

    An empty value means "under `home`", so that one folder holds everything of the embedded profile. Data, bundles,
    features and predictions may be in S3 (``s3://bucket/prefix``), the online store may be Redis
    (``redis://host:port/db``; its password is FAIRLEAD_REDIS_PASSWORD), tracking may be a server (``http://...``).
    """

    home: str = Field(".fairlead", description="folder of everything that has no address of its own")
    data: str = Field("", description="folder or s3:// of dataset versions; default <home>/data")
    runs: str = Field("", description="folder of runs and their artifacts; default <home>/runs")
    cache: str = Field("", description="folder of the step cache; default <home>/cache")
    tracking: str = Field("", description="MLflow tracking and registry URI; default sqlite:///<home>/mlflow.db")
    artifacts: str = Field("", description="folder or s3:// of published bundles; default <home>/bundles")
    features: str = Field("", description="folder or s3:// of feature history and registries; default <home>/features")
    online: str = Field("", description="online store, a SQLite file or redis://; default <home>/features/online.db")
    predictions: str = Field("", description="folder or s3:// of logged predictions; default <home>/predictions")

    studies: str = Field(
        "",
        description="SQL server for trials of searches, as mysql+pymysql://user@host/database; "
        "its password is FAIRLEAD_SEARCH_PASSWORD; default a file",
    )
    documents: str = Field(
        "",
        description="mongodb://host/database that gets rows as they came and as they were cleaned, by dataset version; "
        "user and password are FAIRLEAD_MONGODB_USERNAME and FAIRLEAD_MONGODB_PASSWORD; default none",
    )
    hub: str = Field("", description="https:// of the hub that ``hub:ORG/NAME`` weights may come from; default none")

    def uri(self, name: str) -> str:
        """The address of one of the fields above: an absolute local path, or what was given with a scheme."""
        given: str = getattr(self, name)
        if "://" in given:
            return given
        if given:
            return str(Path(given).expanduser().absolute())
        defaults = {"artifacts": "bundles", "online": "features/online.db"}
        return str(self.scratch(defaults.get(name, name)))

    def path(self, name: str) -> Path:
        """The absolute local folder or file of one of the fields above.

        Raises:
            PlatformError: ``code="remote_address"`` when it is not on this machine.
        """
        if name == "home":
            return self.scratch()
        address = self.uri(name)
        if "://" in address:
            raise PlatformError(
                f"{name} must be on this machine here, and is {address}",
                fix=f"use a profile with a local {name}, or run this where that address is meant: --profile cluster",
                code="remote_address",
            )
        return Path(address)

    def scratch(self, *parts: str) -> Path:
        """A local path below `home`, for what need not outlive this machine."""
        return Path(self.home).expanduser().absolute().joinpath(*parts)

    @property
    def tracking_uri(self) -> str:
        """The MLflow URI; the folder of an embedded SQLite file is not created here."""
        return self.tracking or f"sqlite:///{self.scratch('mlflow.db')}"

    def resolved(self) -> Endpoints:
        """The same addresses, all absolute, so that they can cross a process border."""
        names = ["data", "runs", "cache", "artifacts", "features", "online", "predictions"]
        values = {name: self.uri(name) for name in names}
        return Endpoints(
            home=str(self.scratch()),
            tracking=self.tracking_uri,
            studies=self.studies,
            documents=self.documents,
            hub=self.hub,
            **values,
        )
