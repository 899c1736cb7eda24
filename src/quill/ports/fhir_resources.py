"""The FHIR R4 resources Quill keeps, and whether a document is a valid one.

The shapes only judge: a document is never rewritten by them, so unknown elements stay and decimals keep every digit.

Source: FHIR R4 (4.0.1), ``patient.html``, ``communication.html``, ``medicationrequest.html``.
"""

import re
from functools import cache
from itertools import islice
from typing import Annotated, Any, Literal, Required

from pydantic import AfterValidator, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from quill.errors import InvalidRecord
from quill.kit.documents import Document
from quill.ports.fhir_datatypes import (
    Address,
    Annotation,
    Attachment,
    BackboneElement,
    Code,
    CodeableConcept,
    ContactPoint,
    Date,
    DateTime,
    Extension,
    Gender,
    HumanName,
    Id,
    Identifier,
    Integer,
    Meta,
    Narrative,
    Period,
    Priority,
    Quantity,
    Reference,
    String,
    UnsignedInteger,
    Uri,
    one_of,
)
from quill.ports.fhir_dosage import Dosage
from quill.ports.fhir_json import Mistake, Place, json_mistakes, mistake, shape_mistakes

_VALUE = re.compile(r"value[A-Z]\w*")

MAXIMUM_MISTAKES = 50
"""Mistakes told at once; more would help nobody and a hostile record could hold millions."""


class ContainedResource(TypedDict, total=False):
    """A resource inside another; of any type, so only what all have is looked at."""

    resourceType: Required[Code]
    id: Id


class DomainResource(TypedDict, total=False):
    """What the resources have in common."""

    id: Required[Id]
    meta: Meta
    implicitRules: Uri
    language: Code
    text: Narrative
    contained: list[ContainedResource]
    extension: list[Extension]
    modifierExtension: list[Extension]


class PatientContact(BackboneElement, total=False):
    """Somebody to turn to about the patient."""

    relationship: list[CodeableConcept]
    name: HumanName
    telecom: list[ContactPoint]
    address: Address
    gender: Gender
    organization: Reference
    period: Period


class PatientCommunication(BackboneElement, total=False):
    """A language the patient can be spoken to in."""

    language: Required[CodeableConcept]
    preferred: bool


class PatientLink(BackboneElement, total=False):
    """Another record of the same person."""

    other: Required[Reference]
    type: Required[Literal["replaced-by", "replaces", "refer", "seealso"]]


class PatientShape(DomainResource, total=False):
    """Demographics of a person receiving care."""

    resourceType: Required[Literal["Patient"]]
    identifier: list[Identifier]
    active: bool
    name: list[HumanName]
    telecom: list[ContactPoint]
    gender: Gender
    birthDate: Date
    deceasedBoolean: bool
    deceasedDateTime: DateTime
    address: list[Address]
    maritalStatus: CodeableConcept
    multipleBirthBoolean: bool
    multipleBirthInteger: Integer
    photo: list[Attachment]
    contact: list[PatientContact]
    communication: list[PatientCommunication]
    generalPractitioner: list[Reference]
    managingOrganization: Reference
    link: list[PatientLink]


Patient = Annotated[
    PatientShape,
    AfterValidator(one_of("deceasedBoolean", "deceasedDateTime")),
    AfterValidator(one_of("multipleBirthBoolean", "multipleBirthInteger")),
]


class PayloadShape(BackboneElement, total=False):
    """A part of what was communicated."""

    contentString: String
    contentAttachment: Attachment
    contentReference: Reference


Payload = Annotated[
    PayloadShape, AfterValidator(one_of("contentString", "contentAttachment", "contentReference", is_required=True))
]


class Communication(DomainResource, total=False):
    """Something communicated, or meant to be."""

    resourceType: Required[Literal["Communication"]]
    identifier: list[Identifier]
    instantiatesCanonical: list[Uri | None]
    instantiatesUri: list[Uri | None]
    basedOn: list[Reference]
    partOf: list[Reference]
    inResponseTo: list[Reference]
    status: Required[
        Literal[
            "preparation",
            "in-progress",
            "not-done",
            "on-hold",
            "stopped",
            "completed",
            "entered-in-error",
            "unknown",
        ]
    ]
    statusReason: CodeableConcept
    category: list[CodeableConcept]
    priority: Priority
    medium: list[CodeableConcept]
    subject: Reference
    topic: CodeableConcept
    about: list[Reference]
    encounter: Reference
    sent: DateTime
    received: DateTime
    recipient: list[Reference]
    sender: Reference
    reasonCode: list[CodeableConcept]
    reasonReference: list[Reference]
    payload: list[Payload]
    note: list[Annotation]


class InitialFill(BackboneElement, total=False):
    """The first supply, when it differs from the later ones."""

    quantity: Quantity
    duration: Quantity


class DispenseRequest(BackboneElement, total=False):
    """What is to be supplied, and how often."""

    initialFill: InitialFill
    dispenseInterval: Quantity
    validityPeriod: Period
    numberOfRepeatsAllowed: UnsignedInteger
    quantity: Quantity
    expectedSupplyDuration: Quantity
    performer: Reference


class SubstitutionShape(BackboneElement, total=False):
    """Whether another product may be supplied instead."""

    allowedBoolean: bool
    allowedCodeableConcept: CodeableConcept
    reason: CodeableConcept


Substitution = Annotated[
    SubstitutionShape, AfterValidator(one_of("allowedBoolean", "allowedCodeableConcept", is_required=True))
]


class MedicationRequestShape(DomainResource, total=False):
    """An order or proposal to supply a medicine and how to take it."""

    resourceType: Required[Literal["MedicationRequest"]]
    identifier: list[Identifier]
    status: Required[
        Literal["active", "on-hold", "cancelled", "completed", "entered-in-error", "stopped", "draft", "unknown"]
    ]
    statusReason: CodeableConcept
    intent: Required[
        Literal[
            "proposal",
            "plan",
            "order",
            "original-order",
            "reflex-order",
            "filler-order",
            "instance-order",
            "option",
        ]
    ]
    category: list[CodeableConcept]
    priority: Priority
    doNotPerform: bool
    reportedBoolean: bool
    reportedReference: Reference
    medicationCodeableConcept: CodeableConcept
    medicationReference: Reference
    subject: Required[Reference]
    encounter: Reference
    supportingInformation: list[Reference]
    authoredOn: DateTime
    requester: Reference
    performer: Reference
    performerType: CodeableConcept
    recorder: Reference
    reasonCode: list[CodeableConcept]
    reasonReference: list[Reference]
    instantiatesCanonical: list[Uri | None]
    instantiatesUri: list[Uri | None]
    basedOn: list[Reference]
    groupIdentifier: Identifier
    courseOfTherapyType: CodeableConcept
    insurance: list[Reference]
    note: list[Annotation]
    dosageInstruction: list[Dosage]
    dispenseRequest: DispenseRequest
    substitution: Substitution
    priorPrescription: Reference
    detectedIssue: list[Reference]
    eventHistory: list[Reference]


MedicationRequest = Annotated[
    MedicationRequestShape,
    AfterValidator(one_of("medicationCodeableConcept", "medicationReference", is_required=True)),
    AfterValidator(one_of("reportedBoolean", "reportedReference")),
]

_SHAPES: dict[str, Any] = {
    "Patient": Patient,
    "Communication": Communication,
    "MedicationRequest": MedicationRequest,
}


@cache
def _shape(resource_type: str) -> TypeAdapter[Any]:
    """Return the shape of a resource type, built when it is first needed so that commands start quickly."""
    return TypeAdapter(_SHAPES[resource_type])


def _mistakes(document: Document) -> list[Mistake]:
    resource_type = document.get("resourceType")
    if not isinstance(resource_type, str) or resource_type not in _SHAPES:
        kinds = ", ".join(_SHAPES)
        return [mistake(("resourceType",), f"Input should be one of: {kinds}", "fhir_resource_type")]
    found = list(islice(json_mistakes(document), MAXIMUM_MISTAKES))
    try:
        _shape(resource_type).validate_python(document, strict=True, extra="allow")
    except ValidationError as error:
        found.extend(islice(shape_mistakes((), error), MAXIMUM_MISTAKES))
    return found


def check_resource(document: Document) -> None:
    """Return when a document is a valid Patient, Communication or MedicationRequest that carries its id.

    Elements Quill does not know are let through. Numbers with a fraction are ``Decimal``, as
    ``quill.kit.documents.loads`` gives them.

    Raises:
        InvalidRecord: 422; ``errors`` holds ``{loc, msg, type}`` for each mistake, ``loc`` being names and list
            positions from the resource down, for example ``["name", 0, "use"]``. No value is repeated.
    """
    found = _mistakes(document)
    if found:
        raise InvalidRecord(errors=found[:MAXIMUM_MISTAKES])


def check_defined(document: Document) -> None:
    """Return when FHIR R4 defines every element of a valid resource.

    What stands in contained resources, in values of extensions and in extensions of primitives is not looked at.

    Raises:
        InvalidRecord: 422, ``errors`` as for ``check_resource``.
    """
    try:
        _shape(document["resourceType"]).validate_python(document, strict=True, extra="forbid")
    except ValidationError as error:
        places = (found["loc"] for found in error.errors(include_url=False, include_input=False, include_context=False))
        found = [
            mistake(place, "FHIR R4 does not define this element", "fhir_undefined")
            for place in places
            if not _may_be_defined(place)
        ]
        if found:
            raise InvalidRecord(errors=found[:MAXIMUM_MISTAKES]) from error


def _may_be_defined(place: Place) -> bool:
    name = place[-1]
    is_primitive_extension = isinstance(name, str) and name.startswith("_")
    is_value = "extension" in str(place[-3:-1]).lower() and _VALUE.fullmatch(str(name)) is not None
    return is_primitive_extension or is_value or place[0] == "contained"
