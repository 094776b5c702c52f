"""The few calls of Kubernetes that steps make, for pods beside their own."""

from __future__ import annotations

import json
from typing import Any

from contracts.errors import PlatformError


class Kube:
    """By the pod's own identity or the caller's kubeconfig."""

    made_for = "step"
    """What it makes something for, in errors; `refused` is their code, and `correct` what to do."""
    refused = "refused"
    correct = "correct what it names"

    def __init__(self, namespace: str) -> None:
        from kubernetes import client, config

        try:
            config.load_incluster_config()
        except config.ConfigException:
            config.load_kube_config()
        self.namespace, self._api, self._client = namespace, client.ApiClient(), client

    def pod(self, name: str) -> dict[str, Any]:
        """A pod as Kubernetes describes it; empty when this identity may not see it."""
        from kubernetes.client import ApiException

        try:
            return dict(self._call("GET", f"/api/v1/namespaces/{self.namespace}/pods/{name}", None))
        except ApiException:
            return {}

    def has_group(self, group: str) -> bool:
        """Whether an API group is served, that is, an operator is installed."""
        return any(item.name == group for item in self._client.ApisApi(self._api).get_api_versions().groups)

    def spec_fields(self, version: str, kind: str) -> tuple[str, ...]:
        """The fields of a kind's spec in the installed release of an operator; () where it cannot be asked.

        Args:
            version: group and version of its API.
        """
        from kubernetes.client import ApiException

        try:
            schemas = self._call("GET", f"/openapi/v3/apis/{version}", None)["components"]["schemas"]
            (found,) = [schema for name, schema in schemas.items() if name.endswith(f".{kind}")]
            return tuple(found["properties"]["spec"]["properties"])
        except (ApiException, KeyError, ValueError):
            return ()

    def create(self, document: dict[str, Any]) -> None:
        """Make it; a policy only where this identity may.

        Raises:
            PlatformError: ``code="no_access"``, or `refused`.
        """
        from kubernetes.client import ApiException

        try:
            self._call("POST", self._path(document), document)
        except ApiException as err:
            if err.status == 403 and document["kind"] == "NetworkPolicy":
                return  # hardening that this identity may not do
            detail = str(err.body or err.reason)[:500]
            if err.status == 403:
                raise PlatformError(
                    f"may not create the {document['kind']} of a {self.made_for}",
                    detail=detail,
                    fix="give the steps' ServiceAccount that right: pipelines.steps.jobs: true in the values",
                    code="no_access",
                ) from err
            raise PlatformError(
                f"the cluster refused the {document['kind']} of a {self.made_for}",
                detail=detail,
                fix=self.correct,
                code=self.refused,
            ) from err

    def delete(self, document: dict[str, Any]) -> None:
        """Delete it with what is made for it, if it is there."""
        from kubernetes.client import ApiException

        try:
            path = f"{self._path(document)}/{document['metadata']['name']}"
            self._call("DELETE", path, {"propagationPolicy": "Background"})
        except ApiException as err:
            if err.status not in (403, 404):
                raise

    def read(self, document: dict[str, Any]) -> dict[str, Any]:
        """It as it is now; empty when it cannot be asked."""
        from kubernetes.client import ApiException

        try:
            return dict(self._call("GET", f"{self._path(document)}/{document['metadata']['name']}", None))
        except ApiException:
            return {}

    def _path(self, document: dict[str, Any]) -> str:
        version = document["apiVersion"]
        plural = document["kind"].lower().removesuffix("y") + ("ies" if document["kind"].endswith("y") else "s")
        root = "/api/v1" if version == "v1" else f"/apis/{version}"
        return f"{root}/namespaces/{self.namespace}/{plural}"

    def _call(self, method: str, path: str, body: Any) -> Any:
        headers = {"Accept": "application/json", "Content-Type": "application/json"}
        answer = self._api.call_api(
            path, method, body=body, header_params=headers, response_type="object", auth_settings=["BearerToken"],
            _return_http_data_only=True,
        )  # fmt: skip
        return json.loads(json.dumps(answer))
