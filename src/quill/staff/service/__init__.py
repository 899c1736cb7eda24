"""Decisions about people: their accounts, rights, logins and links to patients."""

from quill.staff.service.accounts import Changes, NewAccount, change, create, switch
from quill.staff.service.competencies import change_own_competencies, get_competencies
from quill.staff.service.links import link_patient, unlink_patient
from quill.staff.service.lists import UserDetails, get, list_around_patient, list_users
from quill.staff.service.logins import end_login, end_logins, list_logins

__all__ = [
    "Changes",
    "NewAccount",
    "UserDetails",
    "change",
    "change_own_competencies",
    "create",
    "end_login",
    "end_logins",
    "get",
    "get_competencies",
    "link_patient",
    "list_around_patient",
    "list_logins",
    "list_users",
    "switch",
    "unlink_patient",
]
