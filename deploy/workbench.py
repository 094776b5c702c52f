"""JupyterLab in a pod for one person: ``python -m deploy.workbench``; when nobody uses it, it scales itself to zero."""

from __future__ import annotations

import argparse
import base64
import hmac
import os
import shutil
import signal
import subprocess
import sys
import urllib.error
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType

from contracts.pod_api import ACCOUNT, PodApi

EXAMPLES = Path(__file__).resolve().parents[1] / "notebooks"
_PORT, _PATIENCE = 8888, 30.0


def jupyter_command(host: str, idle: int, folder: Path, behind_proxy: bool = False) -> list[str]:
    """JupyterLab in `folder`, whose kernels and then itself end after `idle` seconds without use; asks nobody outside.

    Its token is that of JUPYTER_TOKEN, which no list of processes shows. With `behind_proxy` people need none, as the
    proxy that signs them in has it.
    """
    options = {
        "ServerApp.ip": host,
        "ServerApp.port": _PORT,
        "ServerApp.port_retries": 0,
        "ServerApp.open_browser": False,
        "ServerApp.allow_remote_access": True,
        "ServerApp.root_dir": folder,
        "ServerApp.shutdown_no_activity_timeout": idle,
        "MappingKernelManager.cull_idle_timeout": idle,
        "MappingKernelManager.cull_connected": True,  # a page that is left open is no use
        "TerminalManager.cull_inactive_timeout": idle,
        "LabApp.check_for_updates_class": "jupyterlab.NeverCheckForUpdate",
        "LabApp.news_url": None,
        "LabApp.extension_manager": "readonly",
    }
    if behind_proxy:
        options["ServerApp.identity_provider_class"] = "deploy.workbench_identity.ProxyIdentity"
    return ["jupyter", "lab", *(f"--{name}={value}" for name, value in options.items())]


def signed_in(authorization: str, token: str) -> str:
    """Who a proxy says that somebody is, by HTTP Basic with `token` for the password; empty: it is not the proxy."""
    kind, _, given = authorization.partition(" ")
    end = f":{token}".encode()
    try:
        shown = base64.b64decode(given, validate=True)
        name = shown[: -len(end)].decode()  # which may have colons of its own
    except ValueError:
        return ""
    return name if token and kind.lower() == "basic" and hmac.compare_digest(shown[-len(end) :], end) else ""


def copy_examples(source: Path, folder: Path) -> None:
    """Put notebooks that are not there yet into `folder`; what a person has changed stays."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in sorted(source.glob("*.py")):
        if not (folder / file.name).exists():
            shutil.copyfile(file, folder / file.name)


def sleep_until_woken(statefulset: str, account: Path = ACCOUNT, environ: Mapping[str, str] = os.environ) -> None:
    """Scale the StatefulSet of this pod to zero, which ends the pod.

    Raises:
        OSError: Kubernetes refuses it, or does not answer.
    """
    namespace = (account / "namespace").read_text(encoding="utf-8").strip()
    path = f"/apis/apps/v1/namespaces/{namespace}/statefulsets/{statefulset}/scale"
    PodApi(account, environ).ask(path, _PATIENCE, method="PATCH", change={"spec": {"replicas": 0}})


def run(command: Sequence[str]) -> tuple[int, bool]:
    """Run to the end; its exit code, and whether it ended by itself and not because the pod has to go."""
    asked: list[int] = []
    with subprocess.Popen(command) as child:

        def end(number: int, frame: FrameType | None) -> None:
            asked.append(number)
            child.send_signal(signal.SIGTERM)

        signal.signal(signal.SIGTERM, end)
        return child.wait(), not asked


def main() -> int:
    """Serve until nobody has used it for a while."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--idle", type=int, default=3600, help="seconds without use until it ends; 0: never")
    parser.add_argument("--statefulset", default="", help="what to scale to zero then")
    parser.add_argument("--behind-proxy", action="store_true", help="who has JUPYTER_TOKEN signs people in")
    given = parser.parse_args()
    home = Path.home()
    copy_examples(EXAMPLES, home / "notebooks")
    code, by_itself = run(jupyter_command(given.host, given.idle, home, given.behind_proxy))
    if code == 0 and by_itself and given.statefulset:
        try:
            sleep_until_woken(given.statefulset)
        except urllib.error.URLError as err:
            sys.stderr.write(f"it ends and starts again, because it cannot be scaled to zero: {err}\n")
            return 1
        signal.pause()  # until Kubernetes ends the pod: the container must not be started again meanwhile
    return code


if __name__ == "__main__":
    sys.exit(main())
