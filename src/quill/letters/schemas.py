"""What crosses the wire about letters."""

import datetime
from typing import Annotated

from pydantic import AfterValidator, BaseModel, Field
from pydantic_core import PydanticCustomError
from typing_extensions import TypedDict

from quill.edge.inputs import Input, Line, OptionalLine
from quill.kit.documents import Document

LONGEST_BODY_BYTES = 65_536


def _check_not_blank(text: str) -> str:
    if not text.strip():
        raise PydanticCustomError("blank", "Must not be blank")
    return text


def _check_size(text: str) -> str:
    if len(text.encode()) > LONGEST_BODY_BYTES:
        raise PydanticCustomError("too_long", "Must be at most 65,536 bytes of UTF-8")
    return text


Title = Annotated[Line, AfterValidator(_check_not_blank)]
Body = Annotated[
    str,
    AfterValidator(_check_not_blank),
    AfterValidator(_check_size),
    Field(description="Markdown, 1..65,536 bytes of UTF-8; kept as it is, byte for byte."),
]


class LetterIn(Input):
    """A letter to be written, or what an amended one is to say.

    The author is whoever is signed in; the author fields may repeat that and cannot change it.
    """

    title: Title
    body: Body
    author_name: OptionalLine = Field(default=None, description="Display name or username of the caller, or absent.")
    author_email: OptionalLine = Field(default=None, description="E-mail address of the caller, or absent.")


class LetterWritten(BaseModel):
    """A letter that is kept, in this version."""

    patient_id: str
    composition_uid: str = Field(description="Version uid, `object::system::version`.")
    title: str
    version: int
    created_at: datetime.datetime = Field(description="When the letter was first written.")


# What is read most is plain data, encoded as it is (``edge.answers``).


class LetterRow(TypedDict):
    """The newest version of a letter, in a list."""

    composition_uid: str
    title: str
    created_at: Annotated[datetime.datetime, Field(description="When the letter was first written.")]
    author_name: str
    version: int


class LetterPage(TypedDict):
    """A patient's letters, newest first."""

    patient_id: str
    letters: list[LetterRow]
    next_cursor: str | None


class LetterOut(TypedDict):
    """One version of a letter."""

    patient_id: str
    composition_uid: Annotated[str, Field(description="Version uid, `object::system::version`.")]
    data: Annotated[Document, Field(description="The canonical openEHR COMPOSITION (ITS-JSON).")]
    title: str
    body: Annotated[str, Field(description="Markdown.")]
    author_name: str
    created_at: Annotated[datetime.datetime, Field(description="When the letter was first written.")]
    version: int


class LetterVersionRow(BaseModel):
    """One version of a letter, in the list of its versions."""

    version: int
    composition_uid: str
    title: str
    author_name: str = Field(description="Who wrote this version.")
    created_at: datetime.datetime = Field(description="When the letter was first written.")
    committed_at: datetime.datetime = Field(description="When this version was written.")


class LetterVersions(BaseModel):
    """Every version of a letter, newest first."""

    patient_id: str
    versions: list[LetterVersionRow]
