"""Answering a request by a plan made at the start, instead of working out anew what its route needs.

FastAPI walks through the dependencies of a route on every request and asks of each what it is, which takes longer than
running them. A plan is that walk, taken once: which values come out of the request, which dependencies are called in
which order, who gets what. FastAPI stays the one that says what a route is, publishes it, and tells what is wrong with
a request: a plan looks at all values first, and a request with a wrong one goes FastAPI's way before anything is done.
"""

import inspect
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from fastapi import params
from fastapi.datastructures import DefaultPlaceholder
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

_REQUEST, _RESPONSE, _BODY = 0, 1, 2
_FIRST_FREE = 3

_SCALARS = (str, int, bool)
_WITH_A_BODY = (None, 200, 201, 202)
"""Statuses of answers that hold something."""


class _NotPlannable(Exception):
    """A route needs something that plans do not know."""


@dataclass(frozen=True, slots=True)
class _Value:
    """A value out of the request."""

    slot: int
    source: str
    alias: str
    validate: Callable[[Any], tuple[Any, list[Any]]]
    is_required: bool
    default: Any


@dataclass(frozen=True, slots=True)
class _Step:
    """A dependency and what it gets: names of its parameters with the slots of their values."""

    slot: int
    call: Callable[..., Awaitable[Any]] | None
    enter: Callable[..., AbstractAsyncContextManager[Any]] | None
    gets: tuple[tuple[str, int], ...]


@dataclass(slots=True)
class _Walk:
    """What has been found on the way through a route's dependencies."""

    count: int = _FIRST_FREE
    values: list[_Value] = field(default_factory=list)
    steps: list[_Step] = field(default_factory=list)
    known: dict[tuple[Any, str | None], int] = field(default_factory=dict)

    def slot(self) -> int:
        self.count += 1
        return self.count - 1


class Plan:
    """Everything a route needs, in the order it is needed.

    Args:
        route: one whose dependencies are all asynchronous, and whose parameters are single values.

    Raises:
        _NotPlannable: it is not such a route.
    """

    def __init__(self, route: APIRoute) -> None:
        walk = _Walk()
        self._route = route
        self._gets = _parameters(route.dependant, walk)
        self._endpoint = _coroutine_function(route.dependant.call)
        self._values = tuple(walk.values)
        self._steps = tuple(walk.steps)
        self._count = walk.count
        self._takes_response = _takes_response(route.dependant)
        self._body = _body_of(route)
        self._check_answer()

    def _check_answer(self) -> None:
        route, returned = self._route, inspect.signature(self._endpoint).return_annotation
        if isinstance(returned, type) and issubclass(returned, Response):
            return
        shaped = (
            route.response_model_include,
            route.response_model_exclude,
            not route.response_model_by_alias,
            route.response_model_exclude_unset,
            route.response_model_exclude_defaults,
            route.response_model_exclude_none,
        )
        if (
            route.response_field is None
            or not isinstance(route.response_class, DefaultPlaceholder)
            or any(shaped)
            or route.status_code not in _WITH_A_BODY
        ):
            raise _NotPlannable

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or have FastAPI tell what is wrong with it."""
        request = Request(scope, receive, send)
        content = await _content_of(request) if self._body is not None else None
        found = self._look_at(request, content)
        if found is None:
            await self._route.handle(scope, receive if content is None else _again(content, receive), send)
            return
        answer = await self._act(found, self._steps)
        await answer(scope, receive, send)

    async def _act(self, found: list[Any], steps: Sequence[_Step]) -> Response:
        """Return the answer, once whatever was opened for it has been closed."""
        for place, step in enumerate(steps, 1):
            given = {name: found[slot] for name, slot in step.gets}
            if step.call is not None:
                found[step.slot] = await step.call(**given)
            elif step.enter is not None:
                async with step.enter(**given) as found[step.slot]:
                    return await self._act(found, steps[place:])
                raise RuntimeError(f"A dependency of {self._route.name} has hidden an error.")
        returned = await self._endpoint(**{name: found[slot] for name, slot in self._gets})
        return returned if isinstance(returned, Response) else self._answer(returned, found[_RESPONSE])

    def _look_at(self, request: Request, content: bytes | None) -> list[Any] | None:
        """Return the request's values, each in its slot; ``None`` when one of them is not as it should be."""
        found: list[Any] = [None] * self._count
        found[_REQUEST] = request
        for value in self._values:
            given = _read(request, value.source, value.alias)
            if given is not None:
                found[value.slot], wrong = value.validate(given)
                if wrong:
                    return None
            elif value.is_required:
                return None
            else:
                found[value.slot] = value.default
        if self._body is not None and not _read_body(self._body, request, content or b"", found):
            return None
        if self._takes_response:
            found[_RESPONSE] = _EarlyResponse()
        return found

    def _answer(self, returned: Any, early: Response | None) -> Response:
        shape, status = self._route.response_field, self._route.status_code or 200
        checked, wrong = shape.validate(returned) if shape is not None else (None, [])
        if shape is None or wrong:
            raise TypeError(f"{self._route.name} does not answer what it says it does.")
        if early is None:
            return Response(shape.serialize_json(checked), status, media_type="application/json")
        answer = Response(shape.serialize_json(checked), early.status_code or status, media_type="application/json")
        answer.headers.raw.extend(early.headers.raw)
        return answer


class _EarlyResponse(Response):
    """What a route may set headers and status of before its answer is there."""

    def __init__(self) -> None:
        super().__init__()
        del self.headers["content-length"]
        self.status_code = 0


def plan_for(route: APIRoute) -> Plan | None:
    """Return the plan of a route; ``None`` when it needs something that plans do not know."""
    try:
        return Plan(route)
    except _NotPlannable:
        return None


def _parameters(dependant: Dependant, walk: _Walk) -> tuple[tuple[str, int], ...]:
    """Return what a function gets, having put what it needs into the walk before it."""
    if (
        dependant.websocket_param_name
        or dependant.http_connection_param_name
        or dependant.background_tasks_param_name
        or dependant.security_scopes_param_name
        or dependant.own_oauth_scopes
        or dependant.parent_oauth_scopes
        or dependant.concurrency
        or dependant.cookie_params
    ):
        raise _NotPlannable
    gets = []
    for inner in dependant.dependencies:
        slot = _step(inner, walk)
        if inner.name is not None:
            gets.append((inner.name, slot))
    for source, fields in (
        ("path_params", dependant.path_params),
        ("query_params", dependant.query_params),
        ("headers", dependant.header_params),
    ):
        for one in fields:
            walk.values.append(_value(one, walk.slot(), source))
            gets.append((one.name, walk.values[-1].slot))
    gets += [(one.name, _BODY) for one in dependant.body_params]
    if dependant.request_param_name:
        gets.append((dependant.request_param_name, _REQUEST))
    if dependant.response_param_name:
        gets.append((dependant.response_param_name, _RESPONSE))
    return tuple(gets)


def _step(dependant: Dependant, walk: _Walk) -> int:
    key = (dependant.call, dependant.scope)
    if dependant.use_cache and key in walk.known:
        return walk.known[key]
    gets = _parameters(dependant, walk)
    slot = walk.slot()
    if inspect.isasyncgenfunction(dependant.call):
        if dependant.scope != "function":
            raise _NotPlannable
        opened: Callable[..., AsyncIterator[Any]] = dependant.call
        walk.steps.append(_Step(slot, None, asynccontextmanager(opened), gets))
    else:
        walk.steps.append(_Step(slot, _coroutine_function(dependant.call), None, gets))
    walk.known.setdefault(key, slot)
    return slot


def _coroutine_function(call: Callable[..., Any] | None) -> Callable[..., Awaitable[Any]]:
    # Others would have to run in a thread, since they may block.
    if call is None or not (
        inspect.iscoroutinefunction(call) or inspect.iscoroutinefunction(getattr(call, "__call__", None))  # noqa: B004
    ):
        raise _NotPlannable
    return call


def _value(one: Any, slot: int, source: str) -> _Value:
    info = one.field_info
    if info.validation_alias is not None or info.validate_default or not _is_scalar(info.annotation):
        raise _NotPlannable
    is_required = info.is_required()
    default = None if is_required else one.default
    if not isinstance(default, str | int | None):
        raise _NotPlannable
    return _Value(slot, source, one.alias, one.validate, is_required, default)


def _is_scalar(annotation: Any) -> bool:
    origin = get_origin(annotation)
    if origin is Literal:
        return True
    if origin in (Union, UnionType):
        return all(_is_scalar(part) for part in get_args(annotation))
    if origin is not None:
        # What is annotated: ``Annotated[str, …]``.
        return hasattr(annotation, "__metadata__") and _is_scalar(annotation.__origin__)
    return annotation is None or annotation is type(None) or annotation in _SCALARS


def _takes_response(dependant: Dependant) -> bool:
    return bool(dependant.response_param_name) or any(_takes_response(inner) for inner in dependant.dependencies)


def _body_of(route: APIRoute) -> _Value | None:
    one = route.body_field
    if one is None:
        return None
    info = one.field_info
    is_json = type(info) is params.Body and info.media_type == "application/json"
    is_whole = len(route.dependant.body_params) == 1 and not route._embed_body_fields
    models = [part for part in get_args(info.annotation) or (info.annotation,) if part is not type(None)]
    if not (is_json and is_whole and len(models) == 1 and issubclass(models[0], BaseModel)):
        raise _NotPlannable
    return _Value(_BODY, "body", one.alias, one.validate, info.is_required(), None)


def _read(request: Request, source: str, alias: str) -> str | None:
    if source == "path_params":
        taken: Mapping[str, Any] = request.path_params
    elif source == "headers":
        taken = request.headers
    elif not request.scope["query_string"]:
        return None
    else:
        taken = request.query_params
    return taken.get(alias)


def _read_body(body: _Value, request: Request, content: bytes, found: list[Any]) -> bool:
    """Put the body among the values; ``False`` when it is not as it should be."""
    if not content:
        found[_BODY] = body.default
        return not body.is_required
    kind, _, _ = request.headers.get("content-type", "").partition(";")
    if kind.strip().lower() != "application/json":
        return False
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        return False
    found[_BODY], wrong = body.validate(document)
    return not wrong


async def _content_of(request: Request) -> bytes:
    try:
        return await request.body()
    except ClientDisconnect as error:
        raise HTTPException(400) from error


def _again(content: bytes, receive: Receive) -> Receive:
    """Return a way to receive a body that was received already, and then what comes after it."""
    is_told = False

    async def again() -> Message:
        nonlocal is_told
        if is_told:
            return await receive()
        is_told = True
        return {"type": "http.request", "body": content, "more_body": False}

    return again
