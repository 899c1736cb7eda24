"""What a request may be refused for: everything below 500 but what is not there, one class for each reason."""

from quill.errors.kinds import BadRequest, Conflict, Forbidden, Unauthenticated, Unprocessable


class InvalidCredentials(BadRequest):
    """Sign-in refused; unknown, disabled and wrong password are one answer."""

    code, sentence = "invalid_credentials", "Invalid credentials"


class TwoFactorRequired(BadRequest):
    """The password was right and a code is needed."""

    code, sentence = "two_factor_required", "Two-factor required"


class InvalidTotp(BadRequest):
    """The code is wrong or was used before."""

    code, sentence = "invalid_totp", "Invalid two-factor code"


class NoTotpSecret(BadRequest):
    """Two-factor sign-in was not set up before it was verified."""

    code, sentence = "no_totp_secret", "No TOTP secret set"


class MissingFields(BadRequest):
    """A field that must not be blank is blank."""

    code, sentence = "missing_fields", "Missing fields"


class PasswordTooShort(BadRequest):
    """The password is shorter than the rule."""

    code, sentence = "password_too_short", "Password too short"


class PasswordTooCommon(BadRequest):
    """The password is one of those tried first."""

    code, sentence = "password_too_common", "This password is too easy to guess"


class UsernameTaken(BadRequest):
    """Another person has this username."""

    code, sentence = "username_taken", "Username already exists"


class EmailTaken(BadRequest):
    """Another person has this e-mail address."""

    code, sentence = "email_taken", "Email already exists"


class CurrentPasswordWrong(BadRequest):
    """The password given to prove oneself is wrong."""

    code, sentence = "current_password_wrong", "Current password is incorrect"


class InvalidResetToken(BadRequest):
    """The reset link is wrong, used or too old."""

    code, sentence = "invalid_reset_token", "Invalid or expired reset link"


class InvalidInviteToken(BadRequest):
    """The invite link is wrong or too old."""

    code, sentence = "invalid_invite_token", "Invalid or expired invite token"


class OrganisationUnknown(BadRequest):
    """The organisation named in a registration does not exist."""

    code, sentence = "organisation_unknown", "Organisation not found"


class OrganisationTypeUnknown(BadRequest):
    """The organisation type is not in the catalogue."""

    code = "organisation_type_unknown"
    sentence = (
        "Invalid organisation type. Must be one of: hospital_team, gp_practice, private_clinic, department, "
        "teaching_establishment"
    )


class NotStaffLevel(BadRequest):
    """Somebody below staff level cannot be a staff member."""

    code, sentence = "not_staff_level", "User must have staff-level permissions or above"


class PermissionLevelUnknown(BadRequest):
    """The permission level asked for is not a ranked one."""

    code, sentence = "permission_level_unknown", "Invalid permission_level"


class NoSubscribers(BadRequest):
    """The caller has no device to notify."""

    code, sentence = "no_subscribers", "No subscribers yet"


class InvalidToken(Unauthenticated):
    """The token is broken, expired, of the wrong kind, or its login has ended."""

    code, sentence = "invalid_token", "Invalid token"


class InactiveUser(Unauthenticated):
    """The account is gone or disabled."""

    code, sentence = "inactive_user", "Inactive user"


class NoRefreshToken(Unauthenticated):
    """The refresh cookie is absent."""

    code, sentence = "no_refresh_token", "No refresh token"


class BadRefreshToken(Unauthenticated):
    """The refresh token is broken, expired or was used before."""

    code, sentence = "bad_refresh_token", "Bad refresh token"


class CsrfFailed(Forbidden):
    """The CSRF header is absent, stale or belongs to another login."""

    code, sentence = "csrf_failed", "CSRF failed"


class ForeignOrigin(Forbidden):
    """A page of another site sent this request."""

    code, sentence = "foreign_origin", "The request comes from another site"


class ReauthenticationRequired(Forbidden):
    """The act wants a fresh sign-in or the password."""

    code, sentence = "reauthentication_required", "Sign in again or give your password to do this"


class RoleMissing(Forbidden):
    """The caller lacks a role."""

    code = "role_missing"


class CompetencyMissing(Forbidden):
    """The caller lacks a competency."""

    code = "competency_missing"

    def __init__(self, competency: str) -> None:
        super().__init__(f"Forbidden: User lacks required competency '{competency}'", facts={"competency": competency})


class LevelMissing(Forbidden):
    """The caller's permission level is too low."""

    code, sentence = "level_missing", "Requires admin or superadmin permissions"


class NotOwnRecord(Forbidden):
    """Only the patient and admins decide who else sees a record."""

    code, sentence = "not_own_record", "Access denied"


class SuperadminMissing(Forbidden):
    """Admins and superadmins are a superadmin's business."""

    code, sentence = "superadmin_missing", "Only a superadmin may create or change an admin or superadmin"


class OwnLevel(Forbidden):
    """Nobody changes their own permission level."""

    code, sentence = "own_level", "You cannot change your own permission level"


class OwnHighRiskCompetency(Forbidden):
    """A competency of high risk is granted by another admin, never by oneself."""

    code, sentence = "own_high_risk_competency", "A competency of high risk must be granted to you by another admin"


class NotParticipant(Forbidden):
    """The caller may read the conversation but takes no part in it."""

    code, sentence = "not_participant", "User is not a participant"


class NotYourMessage(Forbidden):
    """Only the sender may amend a message."""

    code, sentence = "not_your_message", "Can only amend your own messages"


class MayNotJoin(Forbidden):
    """The caller may not put themselves into this conversation."""

    code, sentence = "may_not_join", "You must be in one of the message's organisations to join"


class MayNotRemove(Forbidden):
    """Only the creator or an admin may remove somebody else."""

    code, sentence = "may_not_remove", "Only the person who began the conversation or an admin can remove others"


class UsernameHeld(Conflict):
    """Another person has this username (invites answer 409 where registration answers 400)."""

    code, sentence = "username_held", "Username already taken"


class AlreadyMember(Conflict):
    """Already a member of the organisation."""

    code, sentence = "already_member", "User is already a staff member of this organisation"


class JoinRequestDecided(Conflict):
    """Somebody approved or declined it already."""

    code, sentence = "join_request_decided", "This join request has been decided already"


class InviteClosed(Conflict):
    """The invite was accepted or withdrawn already."""

    code, sentence = "invite_closed", "This invite was accepted or withdrawn already"


class RegistrationTaken(Conflict):
    """Another person has this professional registration."""

    code, sentence = "registration_taken", "Another person has this professional registration"


class LastSuperadmin(Conflict):
    """Without an active superadmin nobody could administer admins any more."""

    code, sentence = "last_superadmin", "The last active superadmin cannot be disabled or demoted"


class ExternalAccountNotLinked(Conflict):
    """External people see the patients who granted them access, and are nobody's patient record."""

    code, sentence = "external_account_not_linked", "An external account cannot be linked to a patient record"


class PatientExists(Conflict):
    """The patient id is already in use."""

    code, sentence = "patient_exists", "A patient with this id already exists"


class NhsNumberTaken(Conflict):
    """A live record already holds this NHS number."""

    code, sentence = "nhs_number_taken", "A patient with this NHS number already exists"


class DuplicateIdentifier(Conflict):
    """Another patient holds one of the identifiers a record comes with."""

    code, sentence = "duplicate_identifier", "Another patient holds one of its identifiers"


class PatientDeactivated(Conflict):
    """The patient's record is deactivated and takes no new entries."""

    code, sentence = "patient_deactivated", "This patient record is deactivated"


class ConversationClosed(Conflict):
    """The conversation is closed and takes no messages."""

    code, sentence = "conversation_closed", "This conversation is closed"


class PatientHasNoAccount(Conflict):
    """No account is linked to the patient, so the patient cannot take part."""

    code, sentence = "patient_has_no_account", "This patient has no account"


class PatientAlreadyLinked(Conflict):
    """The patient is linked to another account."""

    code, sentence = "patient_already_linked", "FHIR patient already linked to another user"


class TotpAlreadyEnabled(Conflict):
    """Two-factor sign-in is on already; its secret is never shown again."""

    code, sentence = "totp_already_enabled", "Two-factor sign-in is already enabled"


class RequestInProgress(Conflict):
    """The same record is being written by another request right now."""

    code, sentence = "request_in_progress", "Another request is writing this right now; try again shortly"
    default_retry_after_seconds = 2


class IdempotencyKeyReused(Conflict):
    """The idempotency key was used for a different request."""

    code, sentence = "idempotency_key_reused", "This Idempotency-Key was used for a different request"


class InvalidCursor(Unprocessable):
    """The paging cursor was not made by this list."""

    code, sentence = "invalid_cursor", "The cursor is not valid for this list"


class InvalidRecord(Unprocessable):
    """A clinical record does not meet its specification."""

    code, sentence = "invalid_record", "The record is not valid"
