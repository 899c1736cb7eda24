"""How a medicine is to be taken, in FHIR's words.

Source: FHIR R4 (4.0.1), ``dosage.html``, and ``datatypes.html``, ``Timing``.
"""

from typing import Annotated, Literal

from pydantic import AfterValidator

from quill.ports.fhir_datatypes import (
    BackboneElement,
    Code,
    CodeableConcept,
    DateTime,
    Element,
    Integer,
    Number,
    Period,
    PositiveInteger,
    Quantity,
    Range,
    Ratio,
    String,
    Time,
    TimeUnit,
    UnsignedInteger,
    one_of,
)


class TimingRepeatShape(Element, total=False):
    """How often, how long and when."""

    boundsDuration: Quantity
    boundsRange: Range
    boundsPeriod: Period
    count: PositiveInteger
    countMax: PositiveInteger
    duration: Number
    durationMax: Number
    durationUnit: TimeUnit
    frequency: PositiveInteger
    frequencyMax: PositiveInteger
    period: Number
    periodMax: Number
    periodUnit: TimeUnit
    dayOfWeek: list[Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"] | None]
    timeOfDay: list[Time | None]
    when: list[Code | None]
    offset: UnsignedInteger


TimingRepeat = Annotated[TimingRepeatShape, AfterValidator(one_of("boundsDuration", "boundsRange", "boundsPeriod"))]


class Timing(BackboneElement, total=False):
    """When something is to happen, perhaps many times."""

    event: list[DateTime | None]
    repeat: TimingRepeat
    code: CodeableConcept


class DoseAndRateShape(Element, total=False):
    """How much, and how quickly."""

    type: CodeableConcept
    doseRange: Range
    doseQuantity: Quantity
    rateRatio: Ratio
    rateRange: Range
    rateQuantity: Quantity


DoseAndRate = Annotated[
    DoseAndRateShape,
    AfterValidator(one_of("doseRange", "doseQuantity")),
    AfterValidator(one_of("rateRatio", "rateRange", "rateQuantity")),
]


class DosageShape(BackboneElement, total=False):
    """How a medicine is to be taken."""

    sequence: Integer
    text: String
    additionalInstruction: list[CodeableConcept]
    patientInstruction: String
    timing: Timing
    asNeededBoolean: bool
    asNeededCodeableConcept: CodeableConcept
    site: CodeableConcept
    route: CodeableConcept
    method: CodeableConcept
    doseAndRate: list[DoseAndRate]
    maxDosePerPeriod: Ratio
    maxDosePerAdministration: Quantity
    maxDosePerLifetime: Quantity


Dosage = Annotated[DosageShape, AfterValidator(one_of("asNeededBoolean", "asNeededCodeableConcept"))]
