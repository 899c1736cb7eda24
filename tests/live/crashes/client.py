"""A clinician's client: sends operations, notes what it is told, and repeats them as a client does after trouble."""

import re
from typing import Any

import httpx2

from quill.kit import ids
from tests.live.crashes.ledger import Kind, Operation, Outcome

CONNECTIONS = 16
"""Of each client; a browser's and its pages' together."""
ANSWER_SECONDS = 60.0
_VERSION = re.compile(r'W/"(\d+)"')


class Client:
    """Somebody signed in.

    Args:
        number: which of the clients, from 0.
        url: where Quill is.
        username: who it is.
        is_remote: whether an operation cut off by a crash may rightly be under way until its lease runs out.
    """

    def __init__(self, number: int, url: str, username: str, *, is_remote: bool) -> None:
        self.number = number
        self.user_id = 0
        self._username = username
        self._is_remote = is_remote
        limits = httpx2.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS)
        timeout = httpx2.Timeout(ANSWER_SECONDS, pool=None)
        self._http = httpx2.AsyncClient(base_url=url, limits=limits, timeout=timeout)

    async def sign_in(self, password: str) -> None:
        """Sign in; the cookies are kept, and outlive the server's end."""
        answer = await self._http.post("/api/auth/login", json={"username": self._username, "password": password})
        answer.raise_for_status()
        self.user_id = (await self.read("/api/auth/me"))["id"]

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def read(self, path: str, **query: Any) -> Any:
        """Return the JSON of a page that must be readable."""
        answer = await self._http.get(path, params=query)
        answer.raise_for_status()
        return answer.json()

    async def read_all(self, path: str, rows: str, limit: int = 500) -> list[Any]:
        """Return the rows of a list, page by page to its end."""
        found: list[Any] = []
        query: dict[str, Any] = {"limit": limit}
        while True:
            page = await self.read(path, **query)
            found += page[rows]
            if page["next_cursor"] is None:
                return found
            query["cursor"] = page["next_cursor"]

    async def send(self, operation: Operation) -> None:
        """Send an operation for the first time and note what the answer says."""
        try:
            answer = await self._call(operation)
        except (httpx2.ConnectError, httpx2.ConnectTimeout):
            operation.statuses.append(0)
            operation.outcome = Outcome.UNHEARD
            return
        except httpx2.TransportError:
            operation.statuses.append(0)
            return
        _note(operation, answer)

    async def repeat(self, operation: Operation) -> str | None:
        """Send an operation once more, word for word.

        Returns:
            What is wrong with the answer, if anything.
        """
        try:
            answer = await self._call(operation)
        except httpx2.TransportError as error:
            return f"a repeat found no answer ({type(error).__name__}): {operation.told()}"
        if operation.outcome is Outcome.ACKNOWLEDGED:
            operation.statuses.append(answer.status_code)
            return _judge_repeat(operation, answer)
        if answer.status_code == 409 and not self._is_remote:
            return f"something is still under way, though a crash ends every transaction: {operation.told()}"
        if answer.status_code == 412 and operation.kind is Kind.EDIT:
            # Nobody else edits this patient: the version it was to replace was replaced by itself.
            operation.statuses.append(412)
            operation.outcome = Outcome.ACKNOWLEDGED
            operation.record = f"{operation.path.rpartition('/')[2]}@{(operation.if_match or 0) + 1}"
            return None
        if answer.status_code in {409, 500, 502, 503}:
            operation.statuses.append(answer.status_code)
            return None if self._is_remote else f"no clear answer to a repeat: {operation.told()}"
        _note(operation, answer)
        return None

    async def _call(self, operation: Operation) -> httpx2.Response:
        request_id = ids.new_uuid()
        operation.request_ids.append(request_id)
        headers = {"X-CSRF-Token": self._http.cookies.get("XSRF-TOKEN") or "", "X-Request-ID": request_id}
        if operation.has_key:
            headers["Idempotency-Key"] = operation.key
        if operation.if_match is not None:
            headers["If-Match"] = f'W/"{operation.if_match}"'
        return await self._http.request(operation.method, operation.path, json=operation.body, headers=headers)


def _note(operation: Operation, answer: httpx2.Response) -> None:
    operation.statuses.append(answer.status_code)
    if answer.is_success:
        operation.outcome = Outcome.ACKNOWLEDGED
        operation.record = record_of(operation, answer)
    elif answer.status_code < 500:
        operation.outcome = Outcome.REFUSED


def _judge_repeat(operation: Operation, answer: httpx2.Response) -> str | None:
    if operation.kind is Kind.EDIT:
        return None if answer.status_code == 412 else f"a repeated edit was taken twice: {operation.told()}"
    if not answer.is_success:
        return f"a repeat was not answered with the first result: {operation.told()}"
    found, first = record_of(operation, answer), operation.record or ""
    if operation.kind is Kind.PATIENT:
        # The first result is the patient, who may have been edited since.
        found, first = found.partition("@")[0], first.partition("@")[0]
    return None if found == first else f"a repeat was answered with {found}: {operation.told()}"


def record_of(operation: Operation, answer: httpx2.Response) -> str:
    """Return which record an answer names.

    Returns:
        ``conversation/message/fhir-id`` of a message and of a conversation's first one, the version uid of a letter,
        ``id@version`` of a patient.
    """
    told = answer.json()
    if operation.kind is Kind.CONVERSATION:
        first = next(message for message in told["messages"] if operation.mark in message["body"])
        return f"{told['id']}/{first['id']}/{first['fhir_communication_id']}"
    if operation.kind in {Kind.MESSAGE, Kind.AMENDMENT}:
        return f"{operation.path.split('/')[3]}/{told['id']}/{told['fhir_communication_id']}"
    if operation.kind in {Kind.LETTER, Kind.LETTER_AMENDMENT}:
        return str(told["composition_uid"])
    version = _VERSION.fullmatch(answer.headers["ETag"])
    return f"{told['id']}@{version[1] if version else 'none'}"
