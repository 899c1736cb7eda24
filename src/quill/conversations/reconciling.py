"""Conversations and messages against the FHIR store, which counts."""

from quill.conversations import queries
from quill.conversations.rebuild import rebuild_projection
from quill.intents.comparing import Comparison, every_resource
from quill.ports.fhir import StoredResource
from quill.ports.fhir_communication import conversation_facts, is_header, message_facts
from quill.unit import Services


async def reconcile(services: Services, *, mends: bool) -> tuple[Comparison, Comparison]:
    """Compare every conversation and message Quill wrote with the tables; the first message makes a conversation.

    Args:
        services: what the program runs on.
        mends: whether the tables are made anew (``rebuild_projection``) when they lack something the store has.

    Returns:
        The conversations and the messages.

    Raises:
        Unavailable: 503 or 502, the store does not answer; nothing was changed.
    """
    conversations, messages = Comparison("conversations"), Comparison("messages")
    headers: dict[str, int] = {}
    threads: dict[str, str] = {}
    async for page in every_resource(services, "Communication"):
        for stored in page:
            _sort(stored, headers, threads)
    begun = set(threads.values())
    versions = {header: version for header, version in headers.items() if header in begun}
    # Whose header is gone cannot be listed; nor can it be told apart from what another program wrote.
    placed = {message for message, header in threads.items() if header in versions}
    conversations.in_store, messages.in_store = len(versions), len(placed)
    async with services.database.reading() as session:
        known_versions = await queries.header_versions(session)
        known_messages = set(await queries.message_fhir_ids(session))
    conversations.unlisted = sorted(set(versions) - set(known_versions))
    conversations.outdated = sorted(
        header for header, version in versions.items() if known_versions.get(header, version) < version
    )
    conversations.lost = sorted(set(known_versions) - set(versions))
    messages.unlisted = sorted(placed - known_messages)
    messages.lost = sorted(known_messages - placed)
    is_behind = conversations.unlisted or conversations.outdated or messages.unlisted
    # What the store has lost is all that is left of it: making the tables anew would throw that away too.
    if mends and is_behind and not (conversations.lost or messages.lost):
        await rebuild_projection(services)
        conversations.mended = len(conversations.unlisted) + len(conversations.outdated)
        messages.mended = len(messages.unlisted)
    return conversations, messages


def _sort(stored: StoredResource, headers: dict[str, int], threads: dict[str, str]) -> None:
    """Put a Communication of ours where it belongs: headers with their versions, messages with their headers."""
    if is_header(stored.document):
        if conversation_facts(stored.document) is not None:
            headers[stored.id] = stored.version
        return
    facts = message_facts(stored.document)
    if facts is not None:
        threads[stored.id] = facts.conversation_fhir_id
