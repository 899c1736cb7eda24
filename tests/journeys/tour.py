"""The main job from end to end, told as a transcript: real patients in, a letter written and read, messages exchanged.

``python -m tests.journeys.tour`` writes ``docs/tour.md``; the suite walks the same way and compares.
"""

import json
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from quill.app import create_app
from quill.cli.commands import app
from quill.settings import Settings
from tests.published_api import Browser

ROOT = Path(__file__).parents[2]
SYNTHEA = ROOT.parent / "shared" / "data" / "synthea-patients.ndjson"
"""307 invented Americans (Synthea, Apache-2.0); not part of the repository."""
INVENTED = ROOT / "tests" / "fixtures" / "patients.ndjson"

PASSWORD = "correct horse battery"
CHEAP: dict[str, str | None] = {
    "QUILL_ARGON2_TIME_COST": "1",
    "QUILL_ARGON2_MEMORY_KIB": "8",
    "QUILL_ARGON2_PARALLELISM": "1",
}

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")
INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
INTRODUCTION = """# A tour

The main job from end to end. This page is the output of `python -m tests.journeys.tour`, which the suite runs; ids the
program minted and times of day are written as `<id>` and `<time>`. The patients are Synthea's 307.
"""


class Tour:
    """Walks the way and writes down what it sees."""

    def __init__(self, directory: Path, patients: Path) -> None:
        self.lines = [INTRODUCTION]
        self._patients = patients
        self._directory = directory
        self._environment: dict[str, str | None] = CHEAP | {
            "QUILL_DATA_DIR": str(directory),
            "QUILL_DATABASE_URL": None,
        }

    def say(self, text: str) -> None:
        """Write a paragraph."""
        self.lines.append(f"\n{text}\n")

    def run(self, *words: str, stdin: str = "") -> str:
        """Run ``quill …`` and write down what it printed."""
        done = CliRunner().invoke(app, words, input=stdin, env=self._environment)
        shown = " ".join(f'"{word}"' if " " in word else word for word in words)
        shown = shown.replace(str(self._patients), self._patients.name)
        self.lines.append(f"```console\n$ quill {shown}\n{done.stdout.strip()}\n```")
        assert done.exit_code == 0, done.output
        return done.stdout

    def call(self, person: "Visitor", method: str, url: str, body: Any = None, *, show: tuple[str, ...] = ()) -> Any:
        """Make a call and write down what was answered; ``show`` names the members worth showing."""
        answer = person.call(method, url, body)
        content = answer.json()
        shown = {name: content[name] for name in show} if show else content
        sent = f"\n\n{json.dumps(body, ensure_ascii=False, indent=1)}" if body is not None else ""
        self.lines.append(
            f"```http\n{method} {_plain(url)} ({person.name}){_plain(sent)}\n\n"
            f"{answer.status_code}\n{_plain(json.dumps(shown, ensure_ascii=False, indent=1))}\n```"
        )
        return content

    def walk(self) -> str:
        """Walk the whole way and return the transcript."""
        self._set_up()
        settings = Settings.model_validate(
            {"data_dir": self._directory, "public_url": "http://testserver", "log_level": "error"}
            | {name.removeprefix("QUILL_").lower(): value for name, value in CHEAP.items()}
        )
        with Browser(create_app(settings)) as browser:
            doctor = Visitor(browser, "dr.osei")
            patient_id = self._find(doctor)
            self._write(doctor, patient_id)
            self._talk(browser, doctor, patient_id)
            self._refuse(browser, patient_id)
        self.say("## The audit trail knows all of it")
        verified = self.run("audit", "verify")
        self.lines[-1] = re.sub(r"\d+ (events|seals|anchors)", r"<n> \1", self.lines[-1])
        assert "intact" in verified
        return "\n".join(self.lines).strip() + "\n"

    def _set_up(self) -> None:
        self.say("## A clinic and its people")
        self.run("migrate")
        self.run("create-organisation", "--name", "Riverside Surgery", "--type", "gp_practice")
        self.run("create-organisation", "--name", "Northfield Clinic", "--type", "private_clinic")
        for username, place in (("dr.osei", "Riverside Surgery"), ("dr.north", "Northfield Clinic")):
            self._create_user(username, "staff", "general_practitioner", "--role", "Clinician", "--organisation", place)
        self._create_user("manager.reed", "admin", "clinic_manager")
        self._create_user("pat", "patient", "patient")
        self.say("## Real patients in")
        self.run("import-patients", str(self._patients), "--organisation", "Riverside Surgery")
        self.say("The same file again changes nothing.")
        self.run("import-patients", str(self._patients), "--organisation", "Riverside Surgery")

    def _create_user(self, username: str, permission: str, profession: str, *words: str) -> None:
        who = ("--username", username, "--email", f"{username}@example.org")
        rights = ("--permission", permission, "--profession", profession)
        self.run("create-user", *who, *rights, *words, "--password-stdin", stdin=f"{PASSWORD}\n")

    def _find(self, doctor: "Visitor") -> str:
        self.say("## A clinician signs in and finds a patient")
        self.call(doctor, "POST", "/api/auth/login", {"username": "dr.osei", "password": PASSWORD})
        everybody = doctor.call("GET", "/api/patients").json()
        expected = [json.loads(line) for line in self._patients.read_text().splitlines() if line.strip()]
        assert {p["id"] for p in everybody["patients"]} == {p["id"] for p in expected}
        wanted = min(expected, key=lambda p: str(p["id"]))
        family = wanted["name"][0]["family"]
        found = doctor.call("GET", f"/api/patients?name={family[:4]}").json()["patients"]
        self.say(
            f"{len(everybody['patients'])} patients are listed; a search for `{family[:4]}` finds {len(found)} of them."
        )
        assert wanted["id"] in {p["id"] for p in found}
        value = wanted["identifier"][0]["value"]
        found = self.call(doctor, "GET", f"/api/patients?identifier={value}&limit=1", show=("fhir_ready",))["patients"]
        assert [p["id"] for p in found] == [wanted["id"]]
        record = self.call(doctor, "GET", f"/api/patients/{wanted['id']}", show=("name", "gender", "birthDate"))
        for element, content in wanted.items():
            assert element == "meta" or record[element] == content, f"{element} did not come back as it went in"
        return str(wanted["id"])

    def _write(self, doctor: "Visitor", patient_id: str) -> None:
        self.say("## A letter, written and read back")
        draft = {"title": "Review of your blood pressure", "body": "Dear patient,\n\n**All is well.**\n\nDr Osei"}
        written = self.call(doctor, "POST", f"/api/patients/{patient_id}/letters", draft)
        self.call(doctor, "GET", f"/api/patients/{patient_id}/letters")
        uid = written["composition_uid"]
        shown = ("title", "body", "author_name", "created_at", "version")
        letter = self.call(doctor, "GET", f"/api/patients/{patient_id}/letters/{uid}", show=shown)
        assert (letter["title"], letter["body"]) == (draft["title"], draft["body"])

    def _talk(self, browser: Browser, doctor: "Visitor", patient_id: str) -> None:
        self.say("## The patient and the clinician exchange messages")
        manager, patient = Visitor(browser, "manager.reed"), Visitor(browser, "pat")
        self.call(manager, "POST", "/api/auth/login", {"username": "manager.reed", "password": PASSWORD})
        me = self.call(patient, "POST", "/api/auth/login", {"username": "pat", "password": PASSWORD})
        me = patient.call("GET", "/api/auth/me").json()
        self.call(manager, "PATCH", f"/api/users/{me['id']}/link-patient", {"fhir_patient_id": patient_id})
        begun = self.call(
            doctor,
            "POST",
            "/api/conversations",
            {
                "patient_id": patient_id,
                "subject": "Your blood pressure",
                "initial_message": "Could you send a reading from your home monitor this week?",
                "include_patient_as_participant": True,
            },
            show=("id", "status", "subject"),
        )
        url = f"/api/conversations/{begun['id']}"
        listed = self.call(patient, "GET", "/api/conversations")["conversations"]
        assert listed[0]["unread_count"] == 1
        self.call(patient, "POST", f"{url}/messages", {"body": "128 over 82 this morning."}, show=("id", "body"))
        talk = self.call(doctor, "GET", url, show=("status", "messages"))
        assert [m["sender_username"] for m in talk["messages"]] == ["dr.osei", "pat"]
        self.call(doctor, "POST", f"{url}/read")

    def _refuse(self, browser: Browser, patient_id: str) -> None:
        self.say("## Another clinic's staff see nothing of it")
        stranger = Visitor(browser, "dr.north")
        stranger.call("POST", "/api/auth/login", {"username": "dr.north", "password": PASSWORD})
        assert self.call(stranger, "GET", "/api/patients", show=("patients", "fhir_ready"))["patients"] == []
        self.call(stranger, "GET", f"/api/patients/{patient_id}", show=("status", "detail", "error_code"))
        assert self.call(stranger, "GET", "/api/conversations")["conversations"] == []


class Visitor:
    """Somebody with a browser of their own."""

    def __init__(self, browser: Browser, name: str) -> None:
        self.name = name
        self._browser = Browser(browser.app)
        self._browser.portal = browser.portal

    def call(self, method: str, url: str, body: Any = None) -> Any:
        """Make a call, with the CSRF token as a browser would send it."""
        headers: Mapping[str, str] = {"X-CSRF-Token": self._browser.cookies.get("XSRF-TOKEN") or ""}
        return self._browser.request(method, url, json=body, headers=headers)


def _plain(text: str) -> str:
    return INSTANT.sub("<time>", UUID.sub("<id>", text)).replace(PASSWORD, "…")


def main() -> None:
    """Write ``docs/tour.md`` from the real patients."""
    with tempfile.TemporaryDirectory() as directory:
        (ROOT / "docs" / "tour.md").write_text(Tour(Path(directory), SYNTHEA).walk())


if __name__ == "__main__":
    main()
