"""The kinds of error, one for each status, and their common parent."""

from collections.abc import Mapping
from typing import Any, ClassVar


class QuillError(Exception):
    """Parent of all errors that have an answer.

    Args:
        detail: one sentence for the person; the class's own sentence when left out.
        retry_after_seconds: when trying again may help; sent as ``Retry-After``.
        facts: extra members of the problem document; ids and field names only, never patient data.
    """

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"
    title: ClassVar[str] = "Internal server error"
    sentence: ClassVar[str] = "Something went wrong on our side."
    default_retry_after_seconds: ClassVar[int | None] = None

    def __init__(
        self,
        detail: str | None = None,
        *,
        retry_after_seconds: int | None = None,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        self.detail = detail or self.sentence
        self.retry_after_seconds = retry_after_seconds or self.default_retry_after_seconds
        self.facts = dict(facts or {})
        super().__init__(self.detail)


class BadRequest(QuillError):
    """The request was understood and is wrong."""

    status, code, title, sentence = 400, "bad_request", "Bad request", "The request is not valid."


class Unauthenticated(QuillError):
    """Nobody is signed in, or no longer."""

    status, code, title, sentence = 401, "not_authenticated", "Not authenticated", "Not authenticated"


class Forbidden(QuillError):
    """Signed in and inside the scope, but not allowed to do this."""

    status, code, title, sentence = 403, "forbidden", "Forbidden", "Forbidden"


class NotFound(QuillError):
    """Absent, or not yours: the same answer."""

    status, code, title, sentence = 404, "not_found", "Not found", "Not Found"


class MethodNotAllowed(QuillError):
    """The address is right and the method is not."""

    status, code, title, sentence = 405, "method_not_allowed", "Method not allowed", "Method Not Allowed"


class Conflict(QuillError):
    """The state of things refuses it."""

    status, code, title, sentence = 409, "conflict", "Conflict", "The request conflicts with what is there."


class Gone(QuillError):
    """It was, and will not be again."""

    status, code, title, sentence = 410, "gone", "Gone", "This is no longer available"


class StaleEdit(QuillError):
    """Edited by someone else since it was read."""

    status, code, title = 412, "stale_edit", "Precondition failed"
    sentence = "This record was changed by someone else since you read it"


class PreconditionRequired(QuillError):
    """An edit that does not say which version it replaces (RFC 6585, section 3)."""

    status, code, title = 428, "precondition_required", "Precondition required"
    sentence = "Send If-Match with the ETag of the version you read"


class BodyTooLarge(QuillError):
    """The body is larger than the server takes."""

    status, code, title, sentence = 413, "body_too_large", "Content too large", "The request body is too large"


class Unprocessable(QuillError):
    """Malformed input.

    Args:
        detail: one sentence.
        errors: which fields are wrong and why, as ``{loc, msg, type}``; never the input itself.
    """

    status, code, title, sentence = 422, "validation_failed", "Unprocessable content", "The request is not valid"

    def __init__(self, detail: str | None = None, *, errors: list[dict[str, Any]] | None = None) -> None:
        super().__init__(detail)
        self.errors = errors if errors is not None else [{"loc": ["body"], "msg": self.detail, "type": self.code}]
        self.facts["errors"] = self.errors

    @classmethod
    def at(cls, place: str, message: str, *, kind: str = "value_error") -> "Unprocessable":
        """Return the error for one field of the body.

        Args:
            place: the field's name.
            message: what is wrong with it, without its value.
            kind: a stable word for the kind of mistake.
        """
        return cls(message, errors=[{"loc": ["body", place], "msg": message, "type": kind}])


class TooManyRequests(QuillError):
    """Asked too often."""

    status, code, title, sentence = 429, "too_many_requests", "Too many requests", "Too many attempts; try again later"
    default_retry_after_seconds = 60


class Unavailable(QuillError):
    """A part of the house does not answer. Never to be read as "there is nothing"."""

    status, code, title, sentence = 503, "unavailable", "Service unavailable", "The service is not available right now"
    default_retry_after_seconds: ClassVar[int | None] = 5
