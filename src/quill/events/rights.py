"""Who may be told of what happened, looked up once for all streams that ask at the same time.

Rights are looked at after the event, at the moment of telling, and never remembered: not from one event to the next,
nor from one look to the next.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy.ext.asyncio import AsyncSession

from quill.access import service as access
from quill.access.service import Requirement
from quill.actor import Actor
from quill.auth import service as auth
from quill.auth.service import Authenticator, SignedIn
from quill.errors import Unauthenticated
from quill.events import wire
from quill.identity import catalogue
from quill.kit.database import Database
from quill.kit.ids import ConversationId, PatientId, UserId
from quill.kit.together import Together
from quill.outbox.service import KeptEvent, LiveEvent

WhoMayReadConversation = Callable[[AsyncSession, Collection[Actor], ConversationId], Awaitable[set[UserId]]]
"""Returns those of some people who may read a conversation at this moment."""

Subject = tuple[ConversationId | None, PatientId]
"""All of an event that decides who may be told of it."""

_TO_READ_LETTERS = Requirement(competency=catalogue.ACCESS_PATIENT_RECORDS)


async def who_may_see(
    session: AsyncSession, actors: Collection[Actor], event: LiveEvent, who_may_read: WhoMayReadConversation
) -> set[UserId]:
    """Return those of some people who may be told of an event at this moment.

    What happens in a conversation is told to those who may read it, a letter to those who may read the patient's
    letters: whoever is tied to the patient, as the routes ask it, and may read records.
    """
    if event.conversation_id is not None:
        return await who_may_read(session, actors, event.conversation_id)
    return await access.who_is_allowed(session, actors, event.patient_id, _TO_READ_LETTERS)


@dataclass(frozen=True, slots=True)
class _Question:
    access_token: str | None
    events: Sequence[KeptEvent]


@dataclass(frozen=True, slots=True)
class _Audience:
    """Who wants to be told of what happened to a subject: any event about it, and the people."""

    event: LiveEvent
    people: dict[UserId, Actor] = field(default_factory=dict)


class Rights:
    """Says what each stream may be told; those who ask at the same time cost as many statements as one.

    Args:
        database: each round of looking takes a session of its own.
        authenticator: says whether a login still stands.
        who_may_read: the conversations' own decision.
    """

    def __init__(self, database: Database, authenticator: Authenticator, who_may_read: WhoMayReadConversation) -> None:
        self._database = database
        self._authenticator = authenticator
        self._who_may_read = who_may_read
        self._questions: Together[_Question, bytes] = Together("live-rights", self._answer)

    async def tell(self, access_token: str | None, events: Sequence[KeptEvent]) -> bytes:
        """Return those of some events that somebody may see at this moment, written; asks for the login in any case.

        Raises:
            Unauthenticated: the login or the account has ended.
        """
        return await self._questions.ask(_Question(access_token, events))

    async def finish(self) -> None:
        """Return when nothing is being looked up any more."""
        await self._questions.finish()

    async def _answer(self, questions: list[_Question]) -> list[bytes | Exception]:
        async with self._database.reading() as session:
            tokens = {question.access_token for question in questions}
            signed_in = await auth.authenticate_all(session, self._authenticator, tokens)
            readers = {
                subject: await who_may_see(session, audience.people.values(), audience.event, self._who_may_read)
                for subject, audience in _audiences(questions, signed_in).items()
            }
        happened = {kept.number: kept for question in questions for kept in question.events}
        chunks = {number: wire.told(kept) for number, kept in happened.items()}
        return [_told(question, signed_in[question.access_token], readers, chunks) for question in questions]


def _audiences(
    questions: Collection[_Question], signed_in: Mapping[str | None, SignedIn | Unauthenticated]
) -> dict[Subject, _Audience]:
    audiences: dict[Subject, _Audience] = {}
    for question in questions:
        found = signed_in[question.access_token]
        if isinstance(found, SignedIn):
            for kept in question.events:
                audience = audiences.setdefault(_subject(kept.event), _Audience(kept.event))
                audience.people[found.actor.person_id] = found.actor
    return audiences


def _told(
    question: _Question,
    found: SignedIn | Unauthenticated,
    readers: Mapping[Subject, Collection[UserId]],
    chunks: Mapping[int, bytes],
) -> bytes | Exception:
    if isinstance(found, Unauthenticated):
        return found
    user_id = found.actor.person_id
    return b"".join(chunks[kept.number] for kept in question.events if user_id in readers[_subject(kept.event)])


def _subject(event: LiveEvent) -> Subject:
    return event.conversation_id, event.patient_id
