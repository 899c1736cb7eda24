"""Decisions and writes about organisations: the places themselves, their members, features, and requests to join."""

from quill.organisations.service.features import enabled_features, list_features, switch_feature
from quill.organisations.service.joining import approve, decline, list_join_requests, request_to_join
from quill.organisations.service.members import add_patient, add_staff, remove_patient, remove_staff
from quill.organisations.service.places import (
    OrganisationDetails,
    OrganisationLine,
    create,
    find_by_name,
    get,
    list_names,
    list_organisations,
    list_shared,
    named,
    update,
)

__all__ = [
    "OrganisationDetails",
    "OrganisationLine",
    "add_patient",
    "add_staff",
    "approve",
    "create",
    "decline",
    "enabled_features",
    "find_by_name",
    "get",
    "list_features",
    "list_join_requests",
    "list_names",
    "list_organisations",
    "list_shared",
    "named",
    "remove_patient",
    "remove_staff",
    "request_to_join",
    "switch_feature",
    "update",
]
