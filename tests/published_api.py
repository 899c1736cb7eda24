"""A browser that believes nothing: every answer the suite is served is checked against the published API."""

import functools
import re
import threading
from typing import Any

import jsonschema_rs
from starlette.testclient import TestClient

from quill.cli.reference import published_document
from tests.running import OneTrip

UNPUBLISHED = re.compile(r"/|/api/docs(/.*)?|/api/openapi\.json")
"""Pages for people; they are not part of the API."""


_assembling = threading.Lock()


@functools.cache
def _assembled() -> dict[str, Any]:
    # Assembling an application for each kind of answer would cost more than the tests themselves.
    return published_document()


def _document() -> dict[str, Any]:
    """Return the document; where several threads need it first, one assembles it.

    While it is assembled warnings are hidden and shown again, which two threads at once get wrong for each other.
    """
    with _assembling:
        return _assembled()


@functools.cache
def _operations() -> list[tuple[re.Pattern[str], dict[str, Any]]]:
    paths: dict[str, Any] = _document()["paths"]
    # Literal paths before templates, so that /users/me is not taken for /users/{id}.
    ordered = sorted(paths.items(), key=lambda entry: entry[0].count("{"))
    return [(re.compile(re.sub(r"\{[^}]+\}", "[^/]+", path)), methods) for path, methods in ordered]


@functools.cache
def _validator(pattern: str, method: str, status: str, media_type: str) -> Any:
    operation = _find(pattern, method)
    schema = operation["responses"][status]["content"][media_type].get("schema", {})
    return jsonschema_rs.Draft202012Validator(schema | {"components": _document()["components"]})


def _find(pattern: str, method: str) -> dict[str, Any]:
    operation: dict[str, Any] = next(ops for regex, ops in _operations() if regex.pattern == pattern)[method]
    return operation


def check_answer(method: str, path: str, status: int, content_type: str, body: Any) -> None:
    """Refuse an answer that the published API does not promise.

    Raises:
        AssertionError: an undocumented status or media type, or a body unlike its schema.
    """
    for regex, methods in _operations():
        if regex.fullmatch(path) and method.lower() in methods:
            responses = methods[method.lower()]["responses"]
            place = f"{method} {regex.pattern} {status}"
            assert str(status) in responses, f"{place}: undocumented status; body {body}"
            content = responses[str(status)].get("content", {})
            media_type = content_type.partition(";")[0]
            assert media_type in content or not content, f"{place}: undocumented media type {media_type}"
            if body is not None and media_type in content and media_type.endswith("json"):
                errors = list(_validator(regex.pattern, method.lower(), str(status), media_type).iter_errors(body))
                assert not errors, f"{place}: {errors[0].message}"
            return
    if status in {404, 405, 422, 307, 403, 413} or UNPUBLISHED.fullmatch(path) or method == "OPTIONS":
        return
    raise AssertionError(f"{method} {path} answered {status} and is not published")


class Browser(TestClient):
    """A test client that checks every answer against the published API.

    Args:
        app: the application, running already where ``portal`` is set; else entering this starts it.
        raise_server_exceptions: whether what goes wrong in the application goes wrong here too.
        client: the address and port requests come from.
    """

    def __init__(
        self, app: Any, *, raise_server_exceptions: bool = True, client: tuple[str, int] = ("testclient", 50000)
    ) -> None:
        super().__init__(app)
        self._transport = OneTrip(app, lambda: self.portal, raises=raise_server_exceptions, client=client)

    def request(self, method: str, url: Any, **kwargs: Any) -> Any:
        """Send a request and check its answer."""
        answer = super().request(method, url, **kwargs)
        for served in [*answer.history, answer]:
            content_type = served.headers.get("content-type", "")
            body = served.json() if "json" in content_type.partition(";")[0] and served.content else None
            check_answer(served.request.method, served.request.url.path, served.status_code, content_type, body)
        return answer
