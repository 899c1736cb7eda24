"""What may be done with conversations; import from here.

``creating`` begins them, ``sending`` adds messages, ``changing`` sets the status, ``people`` says who takes part,
``marking`` keeps how far everybody has read, ``reading`` lists and shows them, ``importing`` brings in many at once.
"""

from quill.conversations.projection import KINDS
from quill.conversations.service.changing import set_status
from quill.conversations.service.creating import create
from quill.conversations.service.finding import may_read, who_may_read
from quill.conversations.service.importing import PastConversation, PastMessage, import_conversations
from quill.conversations.service.marking import mark_read
from quill.conversations.service.people import add, end_participation, join, remove
from quill.conversations.service.reading import list_about, list_messages, list_participants, list_visible, show
from quill.conversations.service.sending import send

__all__ = [
    "KINDS",
    "PastConversation",
    "PastMessage",
    "add",
    "create",
    "end_participation",
    "import_conversations",
    "join",
    "list_about",
    "list_messages",
    "list_participants",
    "list_visible",
    "mark_read",
    "may_read",
    "remove",
    "send",
    "set_status",
    "show",
    "who_may_read",
]
