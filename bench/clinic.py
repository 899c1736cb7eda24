"""The clinic that is measured: ``quill demo`` at a size, and beside it people and talks whose numbers are exact.

======================  =====================================================================================
somebody                what they see
======================  =====================================================================================
``fifty``               a practice of 1,000 patients; 50 conversations, among them one of 20 and one of 10,000
``many``                5,000 conversations about 100 of these patients
``everybody``           every patient of the clinic, the demo's included
``listener.1`` … 100    one conversation, whose messages are told to 1,000 open streams
======================  =====================================================================================
"""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa

from bench.scenarios import Facts
from quill.actor import Level
from quill.app import build_services, start_stores
from quill.audit.seals import seal_pending
from quill.auth.service import Authenticator
from quill.auth.sign_in import open_login
from quill.auth.tokens import TokenType
from quill.cli import crowd, invented
from quill.cli.console import open_job
from quill.identity import service as identity
from quill.identity.service import NewPerson
from quill.kit.ids import OrganisationId, PatientId, UserId
from quill.kit.paging import cursor_of
from quill.letters import service as letters
from quill.letters.service import LetterDraft
from quill.organisations import service as organisations
from quill.settings import Settings
from quill.unit import RequestFacts, Services, open_unit

PASSWORD = "a password for measuring"  # noqa: S105 - of a clinic that lives in a scratch directory
SIGN_IN_ACCOUNTS = 8
LISTENERS = 100
LOGINS = 1000
"""Refreshed in turn: each may be so many times a minute (``auth.throttle``)."""
PATIENTS = 1000
FIRST_PATIENT = 200_000
"""Beyond the demo's, whose NHS numbers are taken."""
LETTERS = 20
FIFTY = [4] * 48 + [20, 10_000]
MANY = [3] * 5000
PAGE = 200


@dataclass(frozen=True, slots=True)
class Size:
    """How much the demo part of a clinic holds; ``deep_page`` is how far into the patient list a reader goes."""

    name: str
    patients: int
    conversations: int
    messages: int
    deep_page: int


SIZES = {
    "small": Size("small", 1000, 500, 5000, deep_page=10),
    "large": Size("large", 100_000, 50_000, 1_000_000, deep_page=100),
}


@dataclass(frozen=True, slots=True)
class Filled:
    """A clinic ready to be measured.

    Attributes:
        facts: what the scenarios need to know of it.
        seconds: how long ``quill demo`` took.
        records: how many it made.
    """

    facts: Facts
    seconds: float
    records: int


def fill(size: Size, settings: Settings, environment: Mapping[str, str]) -> Filled:
    """Fill an empty database, and return what can be asked of it.

    Args:
        size: how large.
        settings: of the program that will be measured.
        environment: the same for a process.
    """
    quill(["migrate"], environment)
    began = time.monotonic()
    counts = {"patients": size.patients, "conversations": size.conversations, "messages": size.messages}
    quill(["demo", "--json", *(f"--{name}={count}" for name, count in counts.items())], environment)
    seconds = time.monotonic() - began
    facts = asyncio.run(_add(settings, size))
    return Filled(facts, seconds, sum(counts.values()))


def quill(words: Sequence[str], environment: Mapping[str, str]) -> None:
    """Run ``quill …`` to its end; raises ``CalledProcessError`` when it fails."""
    program = [sys.executable, "-c", "from quill.cli import main; main()"]
    subprocess.run([*program, *words], env=os.environ | dict(environment), check=True, stdout=subprocess.DEVNULL)


async def _add(settings: Settings, size: Size) -> Facts:
    services = build_services(settings)
    try:
        await start_stores(services)
        builder = _Builder(services, Authenticator(settings))
        facts = await builder.build(size)
        await seal_pending(services.database, settings.resolved_anchor_file)
        await _tidy(services)
        return facts
    finally:
        await services.recorder.stop()
        await services.close()


async def _tidy(services: Services) -> None:
    """Do at once what PostgreSQL does by itself after a while, and fold SQLite's log into its file."""
    words = "PRAGMA wal_checkpoint(TRUNCATE)" if services.database.is_sqlite else "VACUUM ANALYZE"
    async with services.database.reading() as session:
        await session.execute(sa.text(words))


class _Builder:
    def __init__(self, services: Services, authenticator: Authenticator) -> None:
        self._services = services
        self._authenticator = authenticator
        self._people: dict[str, int] = {}
        self._facts: dict[str, Any] = {}

    async def build(self, size: Size) -> Facts:
        await self._make_people()
        await self._make_records()
        await self._look_up(size)
        await self._sign_everybody_in()
        return json.loads(json.dumps(self._facts))  # type: ignore[no-any-return]

    async def _make_people(self) -> None:
        password_hash = await self._authenticator.passwords.hash(PASSWORD)
        listeners = [f"listener.{number}" for number in range(1, LISTENERS + 1)]
        accounts = [f"account.{number}" for number in range(1, SIGN_IN_ACCOUNTS + 1)]
        async with open_job(self._services, "bench") as (unit, actor):
            self._places = [
                (await organisations.create(unit, actor, name=name, type="gp_practice", location=None)).id
                for name in ("Bench Fifty", "Bench Many", "Bench Streams")
            ]
            for name in ("fifty", "many", "everybody", "colleague", *listeners, *accounts):
                person = NewPerson(
                    username=name,
                    email=f"{name}@example.org",
                    password_hash=password_hash,
                    full_name=name.replace(".", " ").title(),
                    level=Level.STAFF,
                    profession="general_practitioner",
                    roles=("Clinician",),
                )
                self._people[name] = await identity.create_person(unit, actor, person)
            fifty, many, streams = self._places
            demo = (
                await unit.session.scalars(sa.text("SELECT id FROM organisation WHERE name NOT LIKE 'Bench%'"))
            ).all()
            works = {"fifty": [fifty], "many": [many], "colleague": self._places, "everybody": [fifty, *demo]}
            for name, places in (works | {name: [streams] for name in listeners}).items():
                for place in places:
                    await identity.add_staff_membership(unit, OrganisationId(place), UserId(self._people[name]))
        self._listeners = listeners
        self._facts |= {
            "fifty_place": fifty,
            "fifty_id": self._people["fifty"],
            "many_id": self._people["many"],
            "colleague_id": self._people["colleague"],
            "accounts": [{"username": name, "password": PASSWORD} for name in accounts],
        }

    async def _make_records(self) -> None:
        services, (fifty, many, streams) = self._services, map(OrganisationId, self._places)
        documents = invented.patients(PATIENTS, start=FIRST_PATIENT)
        patient_ids = await crowd.add_patients(services, documents, lambda _: fifty, _nothing)
        shared = patient_ids[:100]
        async with open_job(services, "bench") as (unit, _):
            for patient_id in shared:
                for place in (many, streams):
                    await identity.add_patient_membership(unit, place, patient_id)
        colleague = UserId(self._people["colleague"])
        talks = await crowd.add_conversations(
            services, crowd.Talkers(fifty, colleague, UserId(self._people["fifty"]), patient_ids), FIFTY, _nothing
        )
        await crowd.add_conversations(
            services, crowd.Talkers(many, colleague, UserId(self._people["many"]), shared), MANY, _nothing
        )
        [stream] = await crowd.add_conversations(
            services,
            crowd.Talkers(
                streams,
                colleague,
                UserId(self._people["listener.1"]),
                shared,
                [UserId(self._people[name]) for name in self._listeners],
            ),
            [2],
            _nothing,
        )
        await self._write_letters(patient_ids[0])
        self._facts |= {
            "patient": patient_ids[0],
            "short_talk": talks[48],
            "long_talk": talks[49],
            "talks": [{"conversation": number} for number in talks[:48]],
            "stream_talk": stream,
        }

    async def _write_letters(self, patient_id: PatientId) -> None:
        facts = RequestFacts("bench", "bench")
        for index in range(LETTERS):
            async with open_unit(self._services, facts) as unit:
                actor = await identity.find_actor(unit.session, unit.settings, UserId(self._people["fifty"]))
                if actor is None:
                    raise ValueError("Somebody of the bench clinic was disabled while it was filled.")
                body = "\n\n".join(invented.message(index + line) for line in range(12))
                draft = LetterDraft(title=invented.subject(index), body=body)
                written = await letters.write_letter(unit, actor, patient_id, draft)
        uid = written["composition_uid"]
        self._facts |= {"letter": uid, "letter_object": uid.partition("::")[0]}

    async def _look_up(self, size: Size) -> None:
        places = {"offset": (size.deep_page - 1) * PAGE - 1, "many": self._places[1]}
        deep = "SELECT sort_name, patient_id FROM patient_index ORDER BY sort_name, patient_id LIMIT 1 OFFSET :offset"
        sent = (
            "SELECT m.conversation_id, min(m.id), max(m.id) FROM message m JOIN conversation_organisation o "
            "ON o.conversation_id = m.conversation_id WHERE o.organisation_id = :many GROUP BY m.conversation_id"
        )
        async with self._services.database.reading() as session:
            name, patient_id = (await session.execute(sa.text(deep), {"offset": places["offset"]})).one()
            ends = (await session.execute(sa.text(sent), {"many": places["many"]})).all()
        first = [{"conversation": number, "message": lowest} for number, lowest, _ in ends]
        last = [{"conversation": number, "message": highest} for number, _, highest in ends]
        self._facts |= {
            "deep_name": quote(name),
            "deep_id": patient_id,
            "deep_cursor": cursor_of(name, patient_id),
            "marks": [*first, *last],
        }

    async def _sign_everybody_in(self) -> None:
        names = ["fifty", "many", "everybody", "colleague", *self._listeners]
        logins = [*names, *["many"] * LOGINS, *["colleague"] * LOGINS]
        async with open_unit(self._services, RequestFacts("bench", "bench")) as unit:
            grants = [
                await open_login(unit, self._authenticator, UserId(self._people[name]), user_agent="bench")
                for name in logins
            ]
        sign = self._authenticator.tokens.sign
        facts = [grant.facts for grant in grants]
        self._facts |= {
            "fifty_login": facts[0].login_id,
            "tokens": {
                name: {"access": sign(TokenType.ACCESS, its), "csrf": sign(TokenType.CSRF, its)}
                for name, its in zip(names, facts, strict=False)
            },
            "listeners": self._listeners,
            "refresh_tokens": [sign(TokenType.REFRESH, its) for its in facts[len(names) : len(names) + LOGINS]],
            "floor_logins": [its.login_id for its in facts[len(names) + LOGINS :]],
        }


def _nothing(_count: int) -> None:
    """Show no progress."""


def write_facts(filled: Filled, file: Path) -> None:
    """Keep what a clinic said of itself for other processes; for our eyes only, as it holds tokens."""
    file.touch(mode=0o600)
    file.write_text(json.dumps(filled.facts))
