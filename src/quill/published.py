"""The published API: what FastAPI derives from the routes, and what it cannot know.

Adds cookies and the CSRF header as security schemes, and to each operation the problem documents that its guard and
the edge can answer. ``docs/reference/openapi.json`` is this, committed.
"""

from importlib.metadata import version
from typing import Any

import swagger_ui_bundle
from fastapi import APIRouter, Depends, FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute, iter_route_contexts
from starlette.responses import HTMLResponse, RedirectResponse
from starlette.staticfiles import StaticFiles

from quill.access.guards import Guard, PatientReadGuard, PatientWriteGuard, Public, PublicMark
from quill.auth.cookies import ACCESS_COOKIE, CSRF_HEADER
from quill.edge.middleware import SAFE_METHODS
from quill.edge.problems import PROBLEM_MEDIA_TYPE, FieldError, Problem
from quill.edge.routing import add_routers, operation_id

VERSION = version("quill")

DOCS_CONTENT_POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; frame-ancestors 'none'"
)
"""The interactive pages run scripts; they exist in development only."""

SECURITY_SCHEMES = {
    "login": {"type": "apiKey", "in": "cookie", "name": ACCESS_COOKIE, "description": "Set by `POST /api/auth/login`."},
    "csrf": {
        "type": "apiKey",
        "in": "header",
        "name": CSRF_HEADER,
        "description": "The value of the `XSRF-TOKEN` cookie, on every call that changes something.",
    },
}


def install(app: FastAPI) -> None:
    """Make the application publish the whole truth about itself."""

    def openapi() -> dict[str, Any]:
        if not app.openapi_schema:
            app.openapi_schema = _document(app)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _document(app: FastAPI) -> dict[str, Any]:
    document = get_openapi(
        title=app.title, version=app.version, summary=app.summary, routes=app.routes, separate_input_output_schemas=True
    )
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for model in (Problem, FieldError):
        schemas[model.__name__] = model.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas[model.__name__].pop("$defs", None)
    schemas.pop("HTTPValidationError", None)
    schemas.pop("ValidationError", None)
    components["securitySchemes"] = SECURITY_SCHEMES
    for context in iter_route_contexts(app.routes):
        route = context.original_route if hasattr(context, "original_route") else context
        if isinstance(route, APIRoute) and route.include_in_schema:
            for method in route.methods or ():
                operation = document["paths"][route.path][method.lower()]
                _complete(operation, guards_of(route.dependant), is_safe=method in SAFE_METHODS)
    return document


def guards_of(dependant: Dependant) -> list[Guard | PublicMark]:
    """Return the guards and public marks among a route's dependencies."""
    found: list[Guard | PublicMark] = [
        inner.call for inner in dependant.dependencies if isinstance(inner.call, Guard | PublicMark)
    ]
    for inner in dependant.dependencies:
        found += guards_of(inner)
    return found


def _complete(operation: dict[str, Any], guards: list[Guard | PublicMark], *, is_safe: bool) -> None:
    responses = operation["responses"]
    guard = next((guard for guard in guards if isinstance(guard, Guard)), None)
    if guard is not None:
        operation["security"] = [{"login": [], "csrf": []}] if guard.writes else [{"login": []}]
        _answer(responses, "401", "`not_authenticated`, `invalid_token`, `inactive_user`")
        _answer(responses, "403", "`role_missing`, `competency_missing`, `level_missing`, `csrf_failed`")
        if isinstance(guard, PatientReadGuard | PatientWriteGuard):
            _answer(responses, "404", "`patient_not_found`: no such patient, or none of yours")
    if not is_safe:
        _answer(responses, "403", "`foreign_origin`: a page of another site sent it")
        _answer(responses, "409", "`conflict`: another request changed this at the same moment")
    for entry in responses.values():
        if "application/json" in entry.get("content", {}) and "Problem" in str(entry["content"]["application/json"]):
            entry["content"] = {PROBLEM_MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    responses.pop("422", None)
    _answer(responses, "422", "`validation_failed`: the input is malformed")
    _answer(responses, "413", "`body_too_large`")
    _answer(responses, "500", "`internal_error`")
    _answer(responses, "503", "A part of the house does not answer: never to be read as no data")


def _answer(responses: dict[str, Any], status: str, description: str) -> None:
    known = responses.setdefault(status, {"description": description})
    known["content"] = {PROBLEM_MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}


def add_interactive_pages(app: FastAPI) -> None:
    """Add the pages on which developers try the API out, and send whoever comes to ``/`` there."""
    router = APIRouter(
        generate_unique_id_function=operation_id,
        include_in_schema=False,
        dependencies=[Depends(Public("development only"))],
    )

    @router.get("/")
    async def home() -> RedirectResponse:
        return RedirectResponse("/api/docs")

    @router.get("/api/docs")
    async def interactive_docs() -> HTMLResponse:
        page = get_swagger_ui_html(
            openapi_url="/api/openapi.json",
            title="Quill API",
            swagger_js_url="/api/docs/static/swagger-ui-bundle.js",
            swagger_css_url="/api/docs/static/swagger-ui.css",
            swagger_favicon_url="/api/docs/static/favicon-32x32.png",
        )
        page.headers["Content-Security-Policy"] = DOCS_CONTENT_POLICY
        return page

    add_routers(app, [router])
    app.mount("/api/docs/static", StaticFiles(directory=str(swagger_ui_bundle.swagger_ui_path)), name="docs-static")
