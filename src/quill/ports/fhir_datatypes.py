"""The FHIR R4 data types Quill's resources are made of, as shapes to validate against.

Each shape is a ``TypedDict``: an element may be left out, never be ``null``, and elements a shape does not know are let
through, so that nothing a record came with is lost. Primitive extensions (``_birthDate``) are checked by
``quill.ports.fhir_json`` for every element alike.

Source: FHIR R4 (4.0.1), ``datatypes.html``, ``references.html``, ``extensibility.html``, ``dosage.html``; required
bindings are closed, other bindings are any code.
"""

import datetime
import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Annotated, Any, Literal, Required

from pydantic import AfterValidator, Field, PlainValidator
from pydantic_core import PydanticCustomError
from typing_extensions import TypedDict

MAXIMUM_STRING_LENGTH = 1024 * 1024
"""Characters a string may have (FHIR R4, datatypes, ``string``)."""

_DATE = re.compile(r"([0-9]{4})(?:-([0-9]{2})(?:-([0-9]{2}))?)?")
_DAY_AND_TIME = re.compile(
    r"(?P<day>[0-9]{4}-[0-9]{2}-[0-9]{2})T(?:[01][0-9]|2[0-3]):[0-5][0-9]:(?:[0-5][0-9]|60)(?:\.[0-9]+)?"
    r"(?:Z|[+-](?:(?:0[0-9]|1[0-3]):[0-5][0-9]|14:00))"
)


def _is_date(text: str) -> bool:
    """Tell whether a text is a year, a month or a day of the calendar."""
    match = _DATE.fullmatch(text)
    if match is None:
        return False
    year, month, day = match.groups("1")
    try:
        datetime.date(int(year), int(month), int(day))
    except ValueError:
        return False
    return True


def _is_instant(text: str) -> bool:
    """Tell whether a text is a day of the calendar with a time and its offset from UTC."""
    match = _DAY_AND_TIME.fullmatch(text)
    return match is not None and _is_date(match["day"])


def _check_date(text: str) -> str:
    if not _is_date(text):
        raise PydanticCustomError("fhir_date", "Input should be a date: YYYY, YYYY-MM or YYYY-MM-DD")
    return text


def _check_date_time(text: str) -> str:
    if not (_is_date(text) or _is_instant(text)):
        raise PydanticCustomError("fhir_date_time", "Input should be a date, or a date and a time with a zone")
    return text


def _check_instant(text: str) -> str:
    if not _is_instant(text):
        raise PydanticCustomError("fhir_instant", "Input should be a date and a time to the second with a zone")
    return text


def _check_decimal(number: object) -> object:
    if isinstance(number, bool) or not isinstance(number, int | Decimal):
        raise PydanticCustomError("fhir_decimal", "Input should be a number")
    if isinstance(number, Decimal) and not number.is_finite():
        raise PydanticCustomError("fhir_decimal", "Input should be a finite number")
    return number


def one_of(*names: str, is_required: bool = False) -> Callable[[Mapping[str, Any]], Mapping[str, Any]]:
    """Return the rule of a choice element: at most one of its typed names, exactly one when it is required.

    Args:
        names: every allowed name, for example ``deceasedBoolean`` and ``deceasedDateTime``.
        is_required: whether one must be there.

    Source: FHIR R4, formats, choice of data types.
    """
    listed = ", ".join(names)

    def check(element: Mapping[str, Any]) -> Mapping[str, Any]:
        present = sum(name in element or f"_{name}" in element for name in names)
        if present > 1:
            raise PydanticCustomError("fhir_choice", "Only one may be given of: {names}", {"names": listed})
        if is_required and not present:
            raise PydanticCustomError("fhir_choice", "One must be given of: {names}", {"names": listed})
        return element

    return check


String = Annotated[str, Field(min_length=1, max_length=MAXIMUM_STRING_LENGTH)]
Code = Annotated[str, Field(pattern=r"^\S+(\s\S+)*$")]
Uri = Annotated[str, Field(pattern=r"^\S+$")]
Id = Annotated[str, Field(pattern=r"^[A-Za-z0-9\-.]{1,64}$")]
Date = Annotated[str, AfterValidator(_check_date)]
DateTime = Annotated[str, AfterValidator(_check_date_time)]
Instant = Annotated[str, AfterValidator(_check_instant)]
Time = Annotated[str, Field(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]:([0-5][0-9]|60)(\.[0-9]+)?$")]
Integer = Annotated[int, Field(ge=-(2**31), lt=2**31)]
UnsignedInteger = Annotated[int, Field(ge=0, lt=2**31)]
PositiveInteger = Annotated[int, Field(ge=1, lt=2**31)]
Number = Annotated[Any, PlainValidator(_check_decimal)]
"""A FHIR ``decimal`` of any precision: an ``int`` or a ``Decimal``, never a ``float``, which loses digits."""

Gender = Literal["male", "female", "other", "unknown"]
Priority = Literal["routine", "urgent", "asap", "stat"]
TimeUnit = Literal["s", "min", "h", "d", "wk", "mo", "a"]


class Element(TypedDict, total=False):
    """What every element may have."""

    id: String
    extension: "list[Extension]"


class ExtensionShape(Element, total=False):
    """A value, or further extensions, under the address that defines it; the commonest value types are checked."""

    url: Required[Uri]
    valueBoolean: bool
    valueCode: Code
    valueDate: Date
    valueDateTime: DateTime
    valueDecimal: Number
    valueInstant: Instant
    valueInteger: Integer
    valueString: String
    valueUri: Uri
    valueAddress: "Address"
    valueCodeableConcept: "CodeableConcept"
    valueCoding: "Coding"
    valueIdentifier: "Identifier"
    valuePeriod: "Period"
    valueReference: "Reference"


def _check_extension(extension: ExtensionShape) -> ExtensionShape:
    """Refuse more than one value, a value beside further extensions, and neither (FHIR R4, constraint ext-1)."""
    # Extensions are the most frequent element by far, hence a plain loop.
    contents = 0
    for name in extension:
        if name.startswith("value") or name == "extension" or (name.startswith("_value") and name[1:] not in extension):
            contents += 1
    if contents != 1:
        raise PydanticCustomError("fhir_extension", "An extension should have either one value or further extensions")
    return extension


Extension = Annotated[ExtensionShape, AfterValidator(_check_extension)]


class BackboneElement(Element, total=False):
    """What a part of a resource may have."""

    modifierExtension: list[Extension]


class Period(Element, total=False):
    """From when until when."""

    start: DateTime
    end: DateTime


class Coding(Element, total=False):
    """One code of one code system."""

    system: Uri
    version: String
    code: Code
    display: String
    userSelected: bool


class CodeableConcept(Element, total=False):
    """A concept in words, in codes, or both."""

    coding: list[Coding]
    text: String


class Identifier(Element, total=False):
    """A number or name a system knows something by."""

    use: Literal["usual", "official", "temp", "secondary", "old"]
    type: CodeableConcept
    system: Uri
    value: String
    period: Period
    assigner: "Reference"


class Reference(Element, total=False):
    """A pointer to another resource."""

    reference: String
    type: Uri
    identifier: Identifier
    display: String


class HumanName(Element, total=False):
    """A name of a person; ``given`` and the like may hold gaps (``null``) where only an extension stands."""

    use: Literal["usual", "official", "temp", "nickname", "anonymous", "old", "maiden"]
    text: String
    family: String
    given: list[String | None]
    prefix: list[String | None]
    suffix: list[String | None]
    period: Period


class ContactPoint(Element, total=False):
    """A telephone number, e-mail address or the like."""

    system: Literal["phone", "fax", "email", "pager", "url", "sms", "other"]
    value: String
    use: Literal["home", "work", "temp", "old", "mobile"]
    rank: PositiveInteger
    period: Period


class Address(Element, total=False):
    """A postal or physical address."""

    use: Literal["home", "work", "temp", "old", "billing"]
    type: Literal["postal", "physical", "both"]
    text: String
    line: list[String | None]
    city: String
    district: String
    state: String
    postalCode: String
    country: String
    period: Period


class Quantity(Element, total=False):
    """An amount; also used for Duration, Age and SimpleQuantity."""

    value: Number
    comparator: Literal["<", "<=", ">=", ">"]
    unit: String
    system: Uri
    code: Code


class Range(Element, total=False):
    """A low and a high amount."""

    low: Quantity
    high: Quantity


class Ratio(Element, total=False):
    """One amount to another."""

    numerator: Quantity
    denominator: Quantity


class Attachment(Element, total=False):
    """Content in another format, inline or elsewhere."""

    contentType: Code
    language: Code
    data: String
    url: Uri
    size: UnsignedInteger
    hash: String
    title: String
    creation: DateTime


class AnnotationShape(Element, total=False):
    """A note, who wrote it and when."""

    authorReference: Reference
    authorString: String
    time: DateTime
    text: Required[String]


Annotation = Annotated[AnnotationShape, AfterValidator(one_of("authorReference", "authorString"))]


class Narrative(Element, total=False):
    """The resource in words, as XHTML."""

    status: Required[Literal["generated", "extensions", "additional", "empty"]]
    div: Required[String]


class Meta(Element, total=False):
    """What a server says about the resource."""

    versionId: Id
    lastUpdated: Instant
    source: Uri
    profile: list[Uri | None]
    security: list[Coding]
    tag: list[Coding]
