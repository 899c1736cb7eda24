"""Errors as RFC 9457 problem documents: the one place an error becomes an answer."""

from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute, iter_route_contexts
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import exc as sa_exc
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from quill.errors import (
    BadRequest,
    BodyTooLarge,
    Conflict,
    DatabaseUnavailable,
    MethodNotAllowed,
    NotFound,
    QuillError,
    Unprocessable,
)
from quill.kit.logs import where
from quill.kit.paging import BadCursor

PROBLEM_MEDIA_TYPE = "application/problem+json"
_MISTAKES = (sa_exc.ProgrammingError, sa_exc.DataError, sa_exc.NotSupportedError)
"""What a database says of a statement that is wrong; whatever else it says, it cannot do its work at the moment.

A PostgreSQL that shuts down, starts up or breaks off is told in several classes, the most general one among them.
"""
LONGEST_FIELD_NAME = 64
"""Longest field name repeated in a 422; a longer one is the caller's data rather than a name."""

log = structlog.get_logger()


class FieldError(BaseModel):
    """One thing wrong with the input; never the input itself."""

    loc: list[str | int] = Field(description="Where: `body`, `query` or `path`, then the field.")
    msg: str
    type: str


class Problem(BaseModel):
    """An error (RFC 9457, `application/problem+json`)."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(description="`urn:quill:problem:` and the error code.")
    title: str
    status: int
    detail: str = Field(description="One sentence for the person.")
    error_code: str = Field(description="Stable word for the kind of error.")
    request_id: str = Field(description="Repeats `X-Request-ID`.")
    errors: list[FieldError] | None = Field(default=None, description="With 422: which fields are wrong.")


def request_id_of(request: Request) -> str:
    """Return the id the edge gave this request."""
    return str(request.scope.get("state", {}).get("request_id", ""))


def problem_document(error: QuillError, request_id: str) -> dict[str, Any]:
    """Return the problem document of an error."""
    return {
        "type": f"urn:quill:problem:{error.code}",
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        "error_code": error.code,
        "request_id": request_id,
        **error.facts,
    }


def problem_response(error: QuillError, request_id: str) -> JSONResponse:
    """Return the answer to an error, with ``Retry-After`` where waiting may help."""
    headers = {}
    if error.retry_after_seconds is not None:
        headers["Retry-After"] = str(error.retry_after_seconds)
    return JSONResponse(
        problem_document(error, request_id), error.status, headers=headers, media_type=PROBLEM_MEDIA_TYPE
    )


def install(app: FastAPI) -> None:
    """Answer every error of the application as a problem document."""
    app.exception_handler(QuillError)(_on_quill_error)
    app.exception_handler(RequestValidationError)(_on_invalid)
    app.exception_handler(BadCursor)(_on_bad_cursor)
    app.exception_handler(HTTPException)(_on_http_exception)
    app.exception_handler(sa_exc.SQLAlchemyError)(_on_database_error)
    app.exception_handler(OSError)(_on_connection_error)


async def _on_quill_error(request: Request, error: QuillError) -> Response:
    if error.status >= 500:
        log.warning("unavailable", code=error.code, request_id=request_id_of(request), cause=where(error))
    return problem_response(error, request_id_of(request))


async def _on_invalid(request: Request, error: RequestValidationError) -> Response:
    return problem_response(Unprocessable(errors=[_field_error(e) for e in error.errors()]), request_id_of(request))


async def _on_bad_cursor(request: Request, error: Exception) -> Response:
    found = Unprocessable(
        "The cursor is not valid for this list",
        errors=[{"loc": ["query", "cursor"], "msg": str(error), "type": "invalid_cursor"}],
    )
    return problem_response(found, request_id_of(request))


async def _on_http_exception(request: Request, error: HTTPException) -> Response:
    response = problem_response(_from_http_exception(error), request_id_of(request))
    response.headers.update(error.headers or {})
    if error.status_code == 405:
        response.headers["Allow"] = ", ".join(sorted(_methods_at(request)))
    return response


def _methods_at(request: Request) -> set[str]:
    """Return every method of a path; each of its routes knows its own only (RFC 9110, section 15.5.6)."""
    routes = (context.original_route for context in iter_route_contexts(request.app.routes))
    path = request.scope["path"]
    found = [route for route in routes if isinstance(route, APIRoute) and route.path_regex.match(path)]
    # A path spelt out is not the one with a parameter that would take it too.
    nearest = min((route.path for route in found), key=lambda template: template.count("{"), default=None)
    return {method for route in found if route.path == nearest for method in route.methods or ()}


async def _on_database_error(request: Request, error: Exception) -> Response:
    request_id = request_id_of(request)
    log.error("database_error", request_id=request_id, cause=where(error))
    if isinstance(error, sa_exc.IntegrityError):
        # Two requests passed the same check at the same moment and the unique constraint decided.
        return problem_response(Conflict("Another request changed this at the same moment"), request_id)
    if isinstance(error, sa_exc.DBAPIError | sa_exc.TimeoutError) and not isinstance(error, _MISTAKES):
        return problem_response(DatabaseUnavailable(), request_id)
    return problem_response(QuillError(), request_id)


async def _on_connection_error(request: Request, error: Exception) -> Response:
    # asyncpg lets the refusal of a connection through as it is; every other port translates its own.
    request_id = request_id_of(request)
    log.error("connection_error", request_id=request_id, cause=where(error))
    return problem_response(DatabaseUnavailable(), request_id)


def _from_http_exception(error: HTTPException) -> QuillError:
    if error.status_code == 404:
        return NotFound()
    if error.status_code == 413:
        return BodyTooLarge()
    if error.status_code == 400:
        # FastAPI's word for a body it could not decode: bad UTF-8, or nested beyond all reason.
        return Unprocessable("The request body is not readable")
    if error.status_code == 405:
        return MethodNotAllowed()
    return QuillError() if error.status_code >= 500 else BadRequest()


def _field_error(error: dict[str, Any]) -> dict[str, Any]:
    loc = [part if isinstance(part, int) else printable(str(part)) for part in error["loc"]]
    return {"loc": loc, "msg": error["msg"], "type": error["type"]}


def printable(name: str) -> str:
    """Return a caller's field name fit to be repeated: short, and without control characters or lone surrogates."""
    clean = name if len(name) <= LONGEST_FIELD_NAME else f"{name[:LONGEST_FIELD_NAME]}…"
    return "".join(c if c.isprintable() and not 0xD800 <= ord(c) <= 0xDFFF else "�" for c in clean)


def answers(*errors: type[QuillError]) -> dict[int | str, dict[str, Any]]:
    """Return the ``responses`` of a route that can give these errors, for the published API."""
    by_status: dict[int | str, dict[str, Any]] = {}
    for error in errors:
        known = by_status.setdefault(error.status, {"model": Problem, "codes": []})
        known["codes"].append(f"`{error.code}`")
    return {
        status: {
            "model": Problem,
            "description": ", ".join(sorted(entry["codes"])),
            "content": {PROBLEM_MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status, entry in by_status.items()
    }
