"""Asks a chat service in the manner of OpenAI, and gives its answer piece by piece."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from contracts.errors import PlatformError

TIMEOUT = 300.0


class ChatClient:
    """One service.

    Attributes:
        model: its first model, by which it is asked.
    """

    def __init__(self, url: str, key: str = "") -> None:
        self._url = urlsplit(url.rstrip("/").removesuffix("/v1"))
        if self._url.scheme not in ("http", "https") or not self._url.hostname:
            raise PlatformError(f"{url} is no address", fix="give http://HOST:PORT", code="bad_input")
        self._headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {key}"} if key else {})
        listed = json.loads(self._answer("GET", "/v1/models").read())
        self.model: str = listed["data"][0]["id"]

    def stream(self, messages: Sequence[Mapping[str, str]], options: Mapping[str, Any]) -> Iterator[str]:
        """The pieces of the answer to a conversation; who stops reading stops the work on it.

        Raises:
            PlatformError: it is refused, or ends in the middle.
        """
        asked = {"model": self.model, "messages": messages, "stream": True, **options}
        response = self._answer("POST", "/v1/chat/completions", asked)
        try:
            while line := response.readline():
                text = line.decode().strip().removeprefix("data: ")
                if text == "[DONE]":
                    return
                if text:
                    document = json.loads(text)
                    if "error" in document:
                        raise _failed(document)
                    for choice in document["choices"]:
                        yield choice["delta"].get("content") or ""
        except (OSError, http.client.HTTPException) as err:
            raise _broken(str(err)) from err
        finally:
            response.close()
        raise _broken("it has no end")

    def _answer(self, method: str, path: str, document: Any = None) -> http.client.HTTPResponse:
        kind = http.client.HTTPSConnection if self._url.scheme == "https" else http.client.HTTPConnection
        connection = kind(self._url.hostname or "", self._url.port, timeout=TIMEOUT)
        body = None if document is None else json.dumps(document).encode()
        try:
            # Without keep-alive the connection belongs to the answer, and is closed with it.
            connection.request(method, self._url.path + path, body, {**self._headers, "connection": "close"})
            response = connection.getresponse()
        except (OSError, http.client.HTTPException) as err:
            fix = "start one: fairlead serve chat"
            raise PlatformError(f"no chat service at {self._url.geturl()}", detail=str(err), fix=fix) from err
        if response.status != 200:
            text = response.read()
            try:
                raise _failed(json.loads(text))
            except (ValueError, AttributeError):
                detail = f"status {response.status} for {path}"
                raise PlatformError("this is no chat service", detail=detail, code="bad_input") from None
        return response


def _failed(document: Any) -> PlatformError:
    error = document.get("error")
    if not isinstance(error, Mapping):  # of another service of ours
        return PlatformError("this is no chat service", detail=str(document.get("title", "")), code="bad_input")
    return PlatformError("the service refused", detail=error.get("message", ""), code=error.get("code") or "refused")


def _broken(detail: str) -> PlatformError:
    return PlatformError("the answer broke off", detail=detail, fix="see the service's log", code="no_answer")
