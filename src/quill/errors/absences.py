"""What is not there, or not for this caller: 404 and 410, one class for each thing looked for."""

from quill.errors.kinds import Gone, NotFound


class PatientNotFound(NotFound):
    """No such patient for this caller."""

    code, sentence = "patient_not_found", "Patient not found"


class PatientNotInFhir(NotFound):
    """The record store holds no such patient, or none of this caller's."""

    code, sentence = "patient_not_in_fhir", "Patient not found in FHIR server"


class LetterNotFound(NotFound):
    """No such letter under this patient."""

    code, sentence = "letter_not_found", "Letter not found"


class ConversationNotFound(NotFound):
    """No such conversation for this caller."""

    code, sentence = "conversation_not_found", "Conversation not found"


class MessageNotFound(NotFound):
    """No such message in this conversation."""

    code, sentence = "message_not_found", "Amended message not found"


class ParticipantNotFound(NotFound):
    """Nobody of that id takes part."""

    code, sentence = "participant_not_found", "Participant not found"


class UserNotFound(NotFound):
    """No such user for this caller."""

    code, sentence = "user_not_found", "User not found"


class OrganisationNotFound(NotFound):
    """No such organisation."""

    code, sentence = "organisation_not_found", "Organisation not found"


class MembershipNotFound(NotFound):
    """Not a member, or no such organisation."""

    code, sentence = "membership_not_found", "Membership not found"


class GrantNotFound(NotFound):
    """No active grant of external access."""

    code, sentence = "grant_not_found", "Active access grant not found"


class InviteNotFound(NotFound):
    """No such invite for this patient."""

    code, sentence = "invite_not_found", "Invite not found"


class JoinRequestNotFound(NotFound):
    """Nobody asked this organisation under this number."""

    code, sentence = "join_request_not_found", "Join request not found"


class LoginNotFound(NotFound):
    """No such login."""

    code, sentence = "login_not_found", "Login not found"


class InviteGone(Gone):
    """The invite was withdrawn, the access it gave was revoked, or whoever sent it may no longer give any."""

    code, sentence = "invite_gone", "This invitation is no longer valid"
