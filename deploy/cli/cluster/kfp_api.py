"""The API of Kubeflow Pipelines: a client of a server that answers, and its errors as ours."""

from __future__ import annotations

import contextlib
import io
import json
import urllib.request
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from contracts.errors import PlatformError
from deploy.cli.cluster.port_forward import reach

if TYPE_CHECKING:
    from deploy.cli.cluster.cluster_settings import Cluster

_EQUALS = 1
_PAGE = 100


def connect(cluster: Cluster, timeout: float = 10) -> Any:
    """A kfp.Client of a server that answers within `timeout` seconds.

    Raises:
        PlatformError: ``code="kfp"``.
    """
    address = reach(cluster.kfp, cluster)
    try:  # the client itself would try for half a minute
        with urllib.request.urlopen(f"{address}/apis/v2beta1/healthz", timeout=timeout) as answer:
            several = bool(json.load(answer).get("multi_user"))
    except (OSError, ValueError) as err:
        raise PlatformError(
            f"Kubeflow Pipelines does not answer: {cluster.kfp}",
            detail=str(err)[:300],
            fix="is it installed and ready? see: fairlead doctor --cluster",
            code="kfp",
        ) from err
    import kfp

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This client only works with Kubeflow Pipeline v2", FutureWarning)
        client = kfp.Client(host=address)
    # An installation for one user knows no namespaces of users.
    client._context_setting["namespace"] = cluster.namespace if several else ""
    return client


@contextlib.contextmanager
def explained(refusal: str, *, prints: bool = False) -> Iterator[None]:
    """Calls of the API: what it answers becomes an error that begins with `refusal`.

    prints: the call makes something, and the client prints a link to a page that need not exist: it is dropped.
    Standard output belongs to the process, so this is for one thread at a time; reading is for any number.

    Raises:
        PlatformError: ``code="kfp"``, with what the server said, whatever the form.
    """
    import kfp_server_api
    import urllib3

    try:
        with contextlib.redirect_stdout(io.StringIO()) if prints else contextlib.nullcontext():
            yield
    except kfp_server_api.ApiException as err:
        gone = err.status == 404
        fix = "it is not there (any more)" if gone else "see above; the server's own log: fairlead diagnose"
        context = {"status": err.status}
        raise PlatformError(refusal, detail=_said(err), fix=fix, code="kfp", **context) from err
    except urllib3.exceptions.HTTPError as err:
        raise PlatformError(
            f"{refusal}: it does not answer",
            detail=str(err)[:300],
            fix="try again; is it ready? see: fairlead doctor --profile PROFILE",
            code="kfp",
        ) from err


def _said(err: Any) -> str:
    """The sentence of an error's body, which is JSON with a message, or text."""
    text = err.body.decode(errors="replace") if isinstance(err.body, bytes) else str(err.body or err.reason)
    try:
        document = json.loads(text)
    except ValueError:
        return f"{err.status}: {text.strip()[:500]}"
    said = document.get("message") or document.get("error") if isinstance(document, dict) else ""
    return f"{err.status}: {str(said or text).strip()[:500]}"


def every(call: Callable[..., Any], items: str, **arguments: Any) -> Iterator[Any]:
    """All `items` of a list call, page by page."""
    token = ""
    while True:
        answer = call(page_token=token, page_size=_PAGE, **arguments)
        yield from getattr(answer, items) or []
        token = answer.next_page_token or ""
        if not token:
            return


def equal(key: str, value: str) -> str:
    """A filter of list calls."""
    return json.dumps({"predicates": [{"operation": _EQUALS, "key": key, "stringValue": value}]})


def experiment_id(client: Any, name: str) -> str:
    """The experiment called `name`, made when there is none."""
    return str(client.create_experiment(name).experiment_id)
