"""Finding the route of a request by the shape of its path, instead of asking one route after the other.

FastAPI asks every route until one matches, and those of an included router twice. With sixty routes that takes longer
than answering. Here the routes stand in a table by the number of their segments and the second of them (the first is
``api`` for all), so that a request is held against the few it can be. Each still says itself whether it matches.
"""

from collections.abc import Iterable

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from quill.edge.plans import plan_for

_Key = tuple[str, int, str]


def operation_id(route: APIRoute) -> str:
    """Return what the published API calls a route: the name of its function; every router is made with this."""
    return route.name


def add_routers(app: FastAPI, routers: Iterable[APIRouter]) -> None:
    """Make the routes of some routers the application's own; the paths of the slices are whole already.

    ``include_router`` would put a layer around each and put every route together once more, half a second for all.
    """
    for router in routers:
        app.router.routes.extend(router.routes)


def find_quickly(app: FastAPI) -> None:
    """Have the application find its routes by their shape; call it when all are there."""
    app.router.middleware_stack = _Table(app.router)


class _Table:
    """What stands before a router and hands it the requests that it cannot place, such as those of no route at all."""

    def __init__(self, router: APIRouter) -> None:
        self._router = router
        self._rest = router.middleware_stack
        self._routes: dict[_Key, list[tuple[APIRoute, ASGIApp | None]]] = {}
        for route in router.routes:
            if isinstance(route, APIRoute):
                plan = plan_for(route)
                for method in route.methods or ():
                    self._routes.setdefault(_key(method, route.path), []).append((route, plan))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request by the first route that matches it, as the router would."""
        if scope["type"] == "http" and not scope.get("root_path"):
            path = scope["path"]
            for route, plan in self._routes.get(_key(scope["method"], path), ()):
                found = route.path_regex.match(path)
                if found is not None:
                    held = {
                        name: route.param_convertors[name].convert(text) for name, text in found.groupdict().items()
                    }
                    scope.update(router=self._router, route=route, endpoint=route.endpoint, path_params=held)
                    await (plan or route.handle)(scope, receive, send)
                    return
        await self._rest(scope, receive, send)


def _key(method: str, path: str) -> _Key:
    segments = path.split("/")
    return method, len(segments), segments[2] if len(segments) > 2 else ""
