"""Which documents are valid FHIR R4 resources, and which are not."""

import datetime
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from fhir.resources.R4B.communication import Communication as CommunicationOracle
from fhir.resources.R4B.medicationrequest import MedicationRequest as MedicationRequestOracle
from fhir.resources.R4B.patient import Patient as PatientOracle
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nhs_number.validate import is_valid as oracle_is_valid

from quill.errors import InvalidRecord
from quill.kit.documents import Document, dumps, loads
from quill.ports.fhir_patient import nhs_number
from quill.ports.fhir_resources import MAXIMUM_MISTAKES, check_resource

REPOSITORY = Path(__file__).parents[2]
OWN_PATIENTS = REPOSITORY / "tests" / "fixtures" / "patients.ndjson"
SYNTHEA_PATIENTS = REPOSITORY.parent / "shared" / "data" / "synthea-patients.ndjson"

ORACLES: dict[str, Any] = {
    "Patient": PatientOracle,
    "Communication": CommunicationOracle,
    "MedicationRequest": MedicationRequestOracle,
}

PATIENT: Document = {"resourceType": "Patient", "id": "p-1"}
COMMUNICATION: Document = {"resourceType": "Communication", "id": "c-1", "status": "completed"}
REQUEST: Document = {
    "resourceType": "MedicationRequest",
    "id": "m-1",
    "status": "active",
    "intent": "order",
    "medicationCodeableConcept": {"text": "Paracetamol 500 mg tablets"},
    "subject": {"reference": "Patient/p-1"},
}


def extended(**value: object) -> dict[str, Any]:
    return {"extension": [{"url": "http://quill.example/e", **value}]}


def dosed(**elements: object) -> dict[str, Any]:
    return {"dosageInstruction": [elements]}


ACCEPTED: list[tuple[Document, dict[str, Any]]] = [
    (PATIENT, {}),
    (PATIENT, {"name": [{"use": "maiden", "family": "Ash", "given": ["Jo", "Li"], "period": {"end": "1999"}}]}),
    (PATIENT, {"name": [{"given": ["Jo", None], "_given": [None, {"id": "x"}]}]}),
    (PATIENT, {"birthDate": "0001"}),
    (PATIENT, {"birthDate": "2000-02-29", "_birthDate": extended(valueDateTime="2000-02-29T01:02:03Z")}),
    (PATIENT, {"_gender": extended(valueCode="unknown")}),
    (PATIENT, {"deceasedDateTime": "2001-12"}),
    (PATIENT, {"deceasedDateTime": "2001-12-31T23:59:59.123456789+14:00"}),
    (PATIENT, {"deceasedBoolean": False, "multipleBirthInteger": 3}),
    (PATIENT, {"meta": {"versionId": "1", "lastUpdated": "2020-01-01T00:00:00.5-11:30", "tag": [{"code": "a b"}]}}),
    (PATIENT, {"telecom": [{"system": "sms", "value": "1", "use": "old", "rank": 1}]}),
    (PATIENT, {"address": [{"use": "billing", "type": "postal", "line": ["1", "2"]}]}),
    (PATIENT, {"identifier": [{"use": "secondary", "value": "1", "assigner": {"identifier": {"value": "2"}}}]}),
    (PATIENT, {"text": {"status": "empty", "div": '<div xmlns="http://www.w3.org/1999/xhtml">x</div>'}}),
    (PATIENT, {"link": [{"other": {"reference": "Patient/2"}, "type": "replaced-by"}]}),
    (PATIENT, {"contact": [{"gender": "other", "name": {"text": "Next of kin"}}]}),
    (PATIENT, extended(valueDecimal=Decimal("1.50"))),
    (PATIENT, extended(valueDecimal=2)),
    (PATIENT, extended(extension=[{"url": "a", "valueInteger": -1}, {"url": "b", "valueReference": {"display": "x"}}])),
    (PATIENT, {"maritalStatus": {"text": 'Says "null", {}, [] and \\u0000 in words'}}),
    (COMMUNICATION, {}),
    (
        COMMUNICATION,
        {
            "partOf": [{"reference": "Communication/0"}],
            "inResponseTo": [{"reference": "Communication/00"}],
            "priority": "urgent",
            "topic": {"text": "Results"},
            "subject": {"reference": "Patient/p-1"},
            "sent": "2024-05-06T07:08:09Z",
            "recipient": [{"identifier": {"system": "http://quill.example/users", "value": "7"}}],
            "sender": {"display": "Dr Ash"},
            "payload": [{"contentString": "Two\nlines\tand 😀"}],
            "note": [{"authorString": "Ash", "time": "2024-05", "text": "Noted"}],
        },
    ),
    (COMMUNICATION, {"status": "entered-in-error", "payload": [{"contentAttachment": {"title": "Scan", "size": 0}}]}),
    (REQUEST, {}),
    (REQUEST, {"priority": "stat", "doNotPerform": False, "reportedBoolean": True, "authoredOn": "2024-05-06"}),
    (
        REQUEST,
        dosed(
            text="One twice a day",
            timing={
                "event": ["2024-05-06"],
                "repeat": {"frequency": 2, "period": Decimal("1.0"), "periodUnit": "d", "timeOfDay": ["08:00:00"]},
            },
            asNeededBoolean=False,
            doseAndRate=[{"doseQuantity": {"value": Decimal("0.50"), "unit": "mg", "comparator": "<="}}],
        ),
    ),
    (REQUEST, {"substitution": {"allowedBoolean": True}, "dispenseRequest": {"numberOfRepeatsAllowed": 0}}),
]

# Unknown elements, and extensions of an extension's own value, which the oracle does not know.
BEYOND_THE_ORACLE: list[tuple[Document, dict[str, Any]]] = [
    (PATIENT, extended(_valueString=extended(valueCode="unknown"))),
    (PATIENT, extended(valueString="x", _valueString={"id": "x"})),
    (PATIENT, extended(valueDecimal=Decimal("1E+400"), _valueDecimal={"id": "x"})),
    (PATIENT, {"somethingNew": {"of": ["any", 1, True, {"kind": Decimal("1.0")}]}}),
    (PATIENT, {"name": [{"somethingNew": "x"}]}),
    (PATIENT, {"_name": {"extension": [{"url": "http://quill.example/e", "valueString": "x"}]}}),
]

REFUSED: list[tuple[Document, dict[str, Any], list[str | int]]] = [
    (PATIENT, {"id": "not an id"}, ["id"]),
    (PATIENT, {"id": "x" * 65}, ["id"]),
    (PATIENT, {"id": "new\nline"}, ["id"]),
    (PATIENT, {"id": "trailing\n"}, ["id"]),
    (PATIENT, {"id": 7}, ["id"]),
    (PATIENT, {"birthDate": "1980-02-30"}, ["birthDate"]),
    (PATIENT, {"birthDate": "1980-2-3"}, ["birthDate"]),
    (PATIENT, {"birthDate": "1980-13"}, ["birthDate"]),
    (PATIENT, {"birthDate": "0000"}, ["birthDate"]),
    (PATIENT, {"birthDate": "80"}, ["birthDate"]),
    (PATIENT, {"birthDate": "19800203"}, ["birthDate"]),
    (PATIENT, {"birthDate": "1980-02-03T00:00:00Z"}, ["birthDate"]),
    (PATIENT, {"birthDate": "\uff11\uff19\uff18\uff10"}, ["birthDate"]),
    (PATIENT, {"birthDate": 1980}, ["birthDate"]),
    (PATIENT, {"deceasedDateTime": "2001-01-01T10:00:00"}, ["deceasedDateTime"]),
    (PATIENT, {"deceasedDateTime": "2001-01-01T10:00Z"}, ["deceasedDateTime"]),
    (PATIENT, {"deceasedDateTime": "2001-01-01T24:00:00Z"}, ["deceasedDateTime"]),
    (PATIENT, {"deceasedDateTime": "2001-02-29T10:00:00Z"}, ["deceasedDateTime"]),
    (PATIENT, {"deceasedDateTime": "2001-01-01T10:00:00+14:30"}, ["deceasedDateTime"]),
    (PATIENT, {"meta": {"lastUpdated": "2001-01-01"}}, ["meta", "lastUpdated"]),
    (PATIENT, {"gender": "X"}, ["gender"]),
    (PATIENT, {"gender": "Male"}, ["gender"]),
    (PATIENT, {"contact": [{"gender": "f"}]}, ["contact", 0, "gender"]),
    (PATIENT, {"name": [{"use": "nick"}]}, ["name", 0, "use"]),
    (PATIENT, {"telecom": [{"system": "telegraph"}]}, ["telecom", 0, "system"]),
    (PATIENT, {"telecom": [{"use": "mobil"}]}, ["telecom", 0, "use"]),
    (PATIENT, {"telecom": [{"rank": 0}]}, ["telecom", 0, "rank"]),
    (PATIENT, {"telecom": [{"value": 5}]}, ["telecom", 0, "value"]),
    (PATIENT, {"address": [{"use": "holiday"}]}, ["address", 0, "use"]),
    (PATIENT, {"address": [{"type": "virtual"}]}, ["address", 0, "type"]),
    (PATIENT, {"identifier": [{"use": "main"}]}, ["identifier", 0, "use"]),
    (PATIENT, {"identifier": [{"system": "two words"}]}, ["identifier", 0, "system"]),
    (PATIENT, {"link": [{"other": {"display": "x"}, "type": "same"}]}, ["link", 0, "type"]),
    (PATIENT, {"link": [{"other": {"display": "x"}}]}, ["link", 0, "type"]),
    (PATIENT, {"communication": [{"preferred": True}]}, ["communication", 0, "language"]),
    (PATIENT, {"text": {"status": "made up", "div": "<div>x</div>"}}, ["text", "status"]),
    (PATIENT, {"contained": [{"id": "x"}]}, ["contained", 0, "resourceType"]),
    (PATIENT, {"active": "true"}, ["active"]),
    (PATIENT, {"active": 1}, ["active"]),
    (PATIENT, {"multipleBirthInteger": "2"}, ["multipleBirthInteger"]),
    (PATIENT, {"multipleBirthInteger": True}, ["multipleBirthInteger"]),
    (PATIENT, {"multipleBirthInteger": 2**31}, ["multipleBirthInteger"]),
    (PATIENT, {"name": {"family": "Ash"}}, ["name"]),
    (PATIENT, {"name": ["Ash"]}, ["name", 0]),
    (PATIENT, {"gender": ["male"]}, ["gender"]),
    (PATIENT, {"maritalStatus": [{"text": "x"}]}, ["maritalStatus"]),
    (PATIENT, {"name": []}, ["name"]),
    (PATIENT, {"name": [{}]}, ["name", 0]),
    (PATIENT, {"name": [{"family": ""}]}, ["name", 0, "family"]),
    (PATIENT, {"name": [{"given": []}]}, ["name", 0, "given"]),
    (PATIENT, {"name": [{"given": ["Jo", None]}]}, ["name", 0, "given", 1]),
    (PATIENT, {"name": [{"given": ["Jo", None], "_given": [{"id": "x"}, None]}]}, ["name", 0, "given", 1]),
    (PATIENT, {"name": [{"given": ["Jo"], "_given": [None, None]}]}, ["name", 0, "_given", 1]),
    (PATIENT, {"name": [None]}, ["name", 0]),
    (PATIENT, {"gender": None}, ["gender"]),
    (PATIENT, {"somethingNew": None}, ["somethingNew"]),
    (PATIENT, {"somethingNew": {"deep": [{"deeper": ""}]}}, ["somethingNew", "deep", 0, "deeper"]),
    (PATIENT, {"_birthDate": "x"}, ["_birthDate"]),
    (PATIENT, {"_birthDate": {"extension": [{"valueString": "x"}]}}, ["_birthDate", "extension", 0, "url"]),
    (PATIENT, {"deceasedBoolean": True, "deceasedDateTime": "2001"}, []),
    (PATIENT, {"multipleBirthBoolean": True, "multipleBirthInteger": 2}, []),
    (PATIENT, {"deceasedBoolean": True, "_deceasedDateTime": {"id": "x"}}, []),
    (PATIENT, {"extension": [{"valueString": "no url"}]}, ["extension", 0, "url"]),
    (PATIENT, extended(), ["extension", 0]),
    (PATIENT, extended(valueString="x", valueInteger=1), ["extension", 0]),
    (PATIENT, extended(valueString="x", extension=[{"url": "a", "valueString": "x"}]), ["extension", 0]),
    (PATIENT, extended(valueString="x", _valueInteger={"id": "x"}), ["extension", 0]),
    (PATIENT, extended(valueDecimal="1.5"), ["extension", 0, "valueDecimal"]),
    (PATIENT, extended(valueDecimal=True), ["extension", 0, "valueDecimal"]),
    (PATIENT, extended(valueDecimal=1.5), ["extension", 0, "valueDecimal"]),
    (PATIENT, extended(valueDecimal=Decimal("NaN")), ["extension", 0, "valueDecimal"]),
    (PATIENT, {"somethingNew": Decimal("Infinity")}, ["somethingNew"]),
    (PATIENT, {"somethingNew": float("nan")}, ["somethingNew"]),
    (PATIENT, {"somethingNew": object()}, ["somethingNew"]),
    (PATIENT, {"name": [{"family": "nul\x00"}]}, ["name", 0, "family"]),
    (PATIENT, {"name": [{"family": "half\ud800"}]}, ["name", 0, "family"]),
    (PATIENT, {"somethingNew": "nul\x00"}, ["somethingNew"]),
    (PATIENT, {"somethingNew": ["half\udfff"]}, ["somethingNew", 0]),
    (COMMUNICATION, {"status": "done"}, ["status"]),
    (COMMUNICATION, {"priority": "later"}, ["priority"]),
    (COMMUNICATION, {"sent": "yesterday"}, ["sent"]),
    (COMMUNICATION, {"subject": "Patient/1"}, ["subject"]),
    (COMMUNICATION, {"partOf": {"reference": "Communication/0"}}, ["partOf"]),
    (COMMUNICATION, {"payload": [{"id": "x"}]}, ["payload", 0]),
    (COMMUNICATION, {"payload": [{"contentString": "x", "contentReference": {"display": "y"}}]}, ["payload", 0]),
    (COMMUNICATION, {"note": [{"time": "2001"}]}, ["note", 0, "text"]),
    (COMMUNICATION, {"payload": [{"contentString": "x" * (2**20 + 1)}]}, ["payload", 0, "contentString"]),
    (REQUEST, {"status": "ordered"}, ["status"]),
    (REQUEST, {"intent": "wish"}, ["intent"]),
    (REQUEST, {"priority": "soon"}, ["priority"]),
    (REQUEST, {"medicationReference": {"reference": "Medication/1"}}, []),
    (REQUEST, {"authoredOn": "06/05/2024"}, ["authoredOn"]),
    (REQUEST, {"substitution": {"reason": {"text": "x"}}}, ["substitution"]),
    (REQUEST, {"dispenseRequest": {"numberOfRepeatsAllowed": -1}}, ["dispenseRequest", "numberOfRepeatsAllowed"]),
    (REQUEST, dosed(asNeededBoolean=True, asNeededCodeableConcept={"text": "x"}), ["dosageInstruction", 0]),
    (
        REQUEST,
        dosed(timing={"repeat": {"periodUnit": "days"}}),
        ["dosageInstruction", 0, "timing", "repeat", "periodUnit"],
    ),
    (
        REQUEST,
        dosed(timing={"repeat": {"timeOfDay": ["8:00"]}}),
        ["dosageInstruction", 0, "timing", "repeat", "timeOfDay", 0],
    ),
]

# A busy machine is no failure.
unhurried = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])

MISSING = [
    (PATIENT, "id"),
    (COMMUNICATION, "status"),
    (REQUEST, "status"),
    (REQUEST, "intent"),
    (REQUEST, "subject"),
    (REQUEST, "medicationCodeableConcept"),
]


def mistakes(document: Document) -> list[dict[str, Any]]:
    with pytest.raises(InvalidRecord) as refused:
        check_resource(document)
    assert refused.value.status == 422
    assert all(set(error) == {"loc", "msg", "type"} for error in refused.value.errors)
    return refused.value.errors


def oracle_accepts(document: Document) -> bool:
    """Tell whether fhir.resources R4B takes a document."""
    try:
        ORACLES[document["resourceType"]].model_validate_json(dumps(document))
    except ValueError:
        return False
    return True


def patient_lines() -> list[Any]:
    files = [path for path in (OWN_PATIENTS, SYNTHEA_PATIENTS) if path.exists()]
    return [pytest.param(path.read_bytes().splitlines(), id=path.stem) for path in files]


@pytest.mark.parametrize(("base", "elements"), [*ACCEPTED, *BEYOND_THE_ORACLE])
def test_a_valid_resource_is_accepted_and_left_as_it_is(base: Document, elements: dict[str, Any]) -> None:
    document = {**base, **elements}
    before = dumps(document)
    check_resource(document)
    assert dumps(document) == before


@pytest.mark.parametrize(("base", "elements", "place"), REFUSED)
def test_an_invalid_resource_is_refused_where_it_is_wrong(
    base: Document, elements: dict[str, Any], place: list[str | int]
) -> None:
    assert place in [error["loc"] for error in mistakes({**base, **elements})]


@pytest.mark.parametrize(("base", "name"), MISSING)
def test_a_required_element_must_be_there(base: Document, name: str) -> None:
    found = mistakes({element: value for element, value in base.items() if element != name})
    assert name in str(found)


@pytest.mark.parametrize("wrong", [None, "Organization", "patient", 1, ["Patient"], {"a": "Patient"}])
def test_another_kind_of_resource_is_refused(wrong: object) -> None:
    assert mistakes({**PATIENT, "resourceType": wrong})[0]["loc"] == ["resourceType"]
    assert mistakes({"id": "p-1"})[0]["loc"] == ["resourceType"]


def test_a_deeply_nested_resource_is_refused() -> None:
    extension: dict[str, Any] = {"url": "http://quill.example/e", "valueString": "x"}
    for _ in range(100_000):
        extension = {"url": "http://quill.example/e", "extension": [extension]}
    assert mistakes({**PATIENT, "extension": [extension]})
    # Taken apart by hand: the interpreter would unwind so deep a structure on its own stack.
    while "extension" in extension:
        extension = extension.pop("extension")[0]


def test_a_hostile_resource_gets_a_short_answer() -> None:
    assert len(mistakes({**PATIENT, "name": [{"use": "wrong", "family": ""}] * 10_000})) == MAXIMUM_MISTAKES


@pytest.mark.parametrize(("base", "elements"), ACCEPTED)
def test_the_oracle_accepts_what_we_accept(base: Document, elements: dict[str, Any]) -> None:
    assert oracle_accepts({**base, **elements})


@pytest.mark.parametrize(("base", "elements"), BEYOND_THE_ORACLE)
def test_the_oracle_refuses_some_that_we_keep_on_purpose(base: Document, elements: dict[str, Any]) -> None:
    assert not oracle_accepts({**base, **elements})


@pytest.mark.parametrize("lines", patient_lines())
def test_every_patient_of_a_file_is_accepted(lines: list[bytes]) -> None:
    assert lines
    for line in lines:
        document = loads(line)
        check_resource(document)
        assert json.loads(dumps(document)) == json.loads(line)


def test_the_oracle_accepts_our_own_patients() -> None:
    documents = [loads(line) for line in OWN_PATIENTS.read_bytes().splitlines()]
    assert [document["id"] for document in documents if not oracle_accepts(document)] == []


def test_our_own_patients_have_invented_numbers_of_the_test_range() -> None:
    numbers = [nhs_number(loads(line)) for line in OWN_PATIENTS.read_bytes().splitlines()]
    given = [number for number in numbers if number is not None]
    assert len(set(given)) == len(given) == 9
    assert all(number.startswith("999") and oracle_is_valid(number) for number in given)


@unhurried
@given(st.dates())
def test_every_day_of_the_calendar_is_a_birth_date(day: datetime.date) -> None:
    check_resource({**PATIENT, "birthDate": day.isoformat()})
    check_resource({**PATIENT, "birthDate": day.isoformat()[:7]})


@unhurried
@given(st.integers(0, 9999), st.integers(0, 99), st.integers(0, 99))
def test_a_birth_date_is_accepted_just_when_the_calendar_has_it(year: int, month: int, day: int) -> None:
    document = {**PATIENT, "birthDate": f"{year:04}-{month:02}-{day:02}"}
    try:
        datetime.date(year, month, day)
    except ValueError:
        assert mistakes(document)[0]["loc"] == ["birthDate"]
    else:
        check_resource(document)


@unhurried
@given(st.datetimes(timezones=st.timezones()).filter(lambda instant: instant.year >= 1970))
def test_every_aware_instant_is_a_date_and_time(instant: datetime.datetime) -> None:
    whole_minutes = instant.utcoffset() or datetime.timedelta()
    zone = datetime.timezone(datetime.timedelta(minutes=whole_minutes // datetime.timedelta(minutes=1)))
    check_resource({**COMMUNICATION, "sent": instant.replace(tzinfo=zone).isoformat()})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.decimals(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
patient_elements = st.sampled_from(
    ["name", "gender", "birthDate", "_birthDate", "extension", "telecom", "active", "meta", "contained", "_x", "x", ""]
)


@unhurried
@given(st.dictionaries(patient_elements, json_values, max_size=5))
def test_any_document_is_accepted_or_refused_in_an_orderly_way(elements: dict[str, Any]) -> None:
    document = {**elements, **PATIENT}
    try:
        check_resource(document)
    except InvalidRecord as refused:
        told = json.dumps(refused.errors, allow_nan=False)
    else:
        told = ""
        assert loads(dumps(document)) == document
    assert told != "[]"


@unhurried
@given(st.text(st.characters(min_codepoint=0x21), min_size=12), st.sampled_from(["gender", "birthDate", "id", "text"]))
def test_no_value_is_repeated_in_a_refusal(marked: str, name: str) -> None:
    value = f"Zq7{marked}"
    for document in ({**PATIENT, name: [value]}, {**PATIENT, name: f"{value} x"}, {**PATIENT, value: None}):
        assert "Zq7" not in json.dumps(mistakes(document))
