"""Who may administer people."""

from typing import Annotated

from fastapi import Depends

from quill.access.guards import WriteGuard
from quill.access.service import Requirement
from quill.actor import Actor, Level

UserCreator = Annotated[
    Actor,
    Depends(
        WriteGuard(
            Requirement(level=Level.ADMIN, level_sentence="Admin or superadmin permissions required to create users")
        ),
        scope="function",
    ),
]
"""Admins, making accounts."""

UserChanger = Annotated[
    Actor,
    Depends(
        WriteGuard(
            Requirement(level=Level.ADMIN, level_sentence="Admin or superadmin permissions required to update users")
        ),
        scope="function",
    ),
]
"""Admins, changing, disabling and signing out people."""

PatientLinker = Annotated[
    Actor, Depends(WriteGuard(Requirement(level=Level.ADMIN, level_sentence="Admin only")), scope="function")
]
"""Admins, tying accounts to patient records."""
