"""Decisions and writes about external people: inviting, accepting, revoking."""

from quill.external.service.accepting import Acceptance, Accepted, accept
from quill.external.service.inviting import Invitation, InviteLine, invite, list_invites, withdraw
from quill.external.service.revoking import list_grants, revoke

__all__ = [
    "Acceptance",
    "Accepted",
    "Invitation",
    "InviteLine",
    "accept",
    "invite",
    "list_grants",
    "list_invites",
    "revoke",
    "withdraw",
]
