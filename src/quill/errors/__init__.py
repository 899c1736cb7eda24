"""Every error Quill answers with, in one tree.

QuillError
├── BadRequest 400                 the request was understood and is wrong
│   ├── InvalidCredentials         sign-in refused, always the same words
│   ├── TwoFactorRequired · InvalidTotp · NoTotpSecret
│   ├── MissingFields · PasswordTooShort · PasswordTooCommon
│   ├── UsernameTaken · EmailTaken · CurrentPasswordWrong
│   ├── InvalidResetToken · InvalidInviteToken
│   ├── OrganisationUnknown · OrganisationTypeUnknown · NotStaffLevel
│   └── PermissionLevelUnknown · NoSubscribers
├── Unauthenticated 401            nobody is signed in, or no longer
├── Forbidden 403                  signed in, inside the scope, not allowed
│   ├── CsrfFailed · ForeignOrigin · ReauthenticationRequired
│   ├── RoleMissing · CompetencyMissing · LevelMissing
│   ├── NotOwnRecord · SuperadminMissing · OwnLevel · OwnHighRiskCompetency
│   └── NotParticipant · NotYourMessage · MayNotJoin · MayNotRemove
├── NotFound 404                   absent, or not yours: the same answer
├── Conflict 409                   the state of things refuses it
│   ├── UsernameHeld · AlreadyMember · PatientExists · NhsNumberTaken · PatientDeactivated
│   ├── DuplicateIdentifier            another patient holds an identifier of an imported record
│   ├── ConversationClosed · PatientHasNoAccount · PatientAlreadyLinked · TotpAlreadyEnabled
│   ├── JoinRequestDecided · InviteClosed · LastSuperadmin · ExternalAccountNotLinked · RegistrationTaken
│   └── RequestInProgress · IdempotencyKeyReused
├── Gone 410                       it was, and will not be again
│   └── InviteGone
├── StaleEdit 412                  edited by someone else since it was read
├── PreconditionRequired 428       an edit that does not say which version it replaces
├── MethodNotAllowed 405 · BodyTooLarge 413
├── Unprocessable 422              malformed input, never the input itself
├── TooManyRequests 429            with Retry-After
└── Unavailable 503 / 502          a part of the house does not answer: never "no data"
    ├── FhirUnavailable · OpenEhrUnavailable · DatabaseUnavailable · AuditUnavailable · Overloaded
    ├── SecondFactorUnreadable · ServerStopping
    ├── ClinicalServicesDisabled
    └── FhirRefused · OpenEhrRefused   502, the other side gave a wrong answer

``status`` and ``code`` belong to the class, a code is never reused, and ``detail`` is one readable sentence that holds
no patient data. ``docs/reference/errors.md`` is generated from it.

The classes are written in ``kinds``, ``refusals``, ``absences`` and ``outages``; import them from here.
"""

from quill.errors.absences import (
    ConversationNotFound,
    GrantNotFound,
    InviteGone,
    InviteNotFound,
    JoinRequestNotFound,
    LetterNotFound,
    LoginNotFound,
    MembershipNotFound,
    MessageNotFound,
    OrganisationNotFound,
    ParticipantNotFound,
    PatientNotFound,
    PatientNotInFhir,
    UserNotFound,
)
from quill.errors.kinds import (
    BadRequest,
    BodyTooLarge,
    Conflict,
    Forbidden,
    Gone,
    MethodNotAllowed,
    NotFound,
    PreconditionRequired,
    QuillError,
    StaleEdit,
    TooManyRequests,
    Unauthenticated,
    Unavailable,
    Unprocessable,
)
from quill.errors.outages import (
    AuditUnavailable,
    ClinicalServicesDisabled,
    DatabaseUnavailable,
    FhirRefused,
    FhirUnavailable,
    OpenEhrRefused,
    OpenEhrUnavailable,
    Overloaded,
    RecordsMoving,
    SecondFactorUnreadable,
    ServerStopping,
)
from quill.errors.refusals import (
    AlreadyMember,
    BadRefreshToken,
    CompetencyMissing,
    ConversationClosed,
    CsrfFailed,
    CurrentPasswordWrong,
    DuplicateIdentifier,
    EmailTaken,
    ExternalAccountNotLinked,
    ForeignOrigin,
    IdempotencyKeyReused,
    InactiveUser,
    InvalidCredentials,
    InvalidCursor,
    InvalidInviteToken,
    InvalidRecord,
    InvalidResetToken,
    InvalidToken,
    InvalidTotp,
    InviteClosed,
    JoinRequestDecided,
    LastSuperadmin,
    LevelMissing,
    MayNotJoin,
    MayNotRemove,
    MissingFields,
    NhsNumberTaken,
    NoRefreshToken,
    NoSubscribers,
    NoTotpSecret,
    NotOwnRecord,
    NotParticipant,
    NotStaffLevel,
    NotYourMessage,
    OrganisationTypeUnknown,
    OrganisationUnknown,
    OwnHighRiskCompetency,
    OwnLevel,
    PasswordTooCommon,
    PasswordTooShort,
    PatientAlreadyLinked,
    PatientDeactivated,
    PatientExists,
    PatientHasNoAccount,
    PermissionLevelUnknown,
    ReauthenticationRequired,
    RegistrationTaken,
    RequestInProgress,
    RoleMissing,
    SuperadminMissing,
    TotpAlreadyEnabled,
    TwoFactorRequired,
    UsernameHeld,
    UsernameTaken,
)

__all__ = [
    "AlreadyMember",
    "AuditUnavailable",
    "BadRefreshToken",
    "BadRequest",
    "BodyTooLarge",
    "ClinicalServicesDisabled",
    "CompetencyMissing",
    "Conflict",
    "ConversationClosed",
    "ConversationNotFound",
    "CsrfFailed",
    "CurrentPasswordWrong",
    "DatabaseUnavailable",
    "DuplicateIdentifier",
    "EmailTaken",
    "ExternalAccountNotLinked",
    "FhirRefused",
    "FhirUnavailable",
    "Forbidden",
    "ForeignOrigin",
    "Gone",
    "GrantNotFound",
    "IdempotencyKeyReused",
    "InactiveUser",
    "InvalidCredentials",
    "InvalidCursor",
    "InvalidInviteToken",
    "InvalidRecord",
    "InvalidResetToken",
    "InvalidToken",
    "InvalidTotp",
    "InviteClosed",
    "InviteGone",
    "InviteNotFound",
    "JoinRequestDecided",
    "JoinRequestNotFound",
    "LastSuperadmin",
    "LetterNotFound",
    "LevelMissing",
    "LoginNotFound",
    "MayNotJoin",
    "MayNotRemove",
    "MembershipNotFound",
    "MessageNotFound",
    "MethodNotAllowed",
    "MissingFields",
    "NhsNumberTaken",
    "NoRefreshToken",
    "NoSubscribers",
    "NoTotpSecret",
    "NotFound",
    "NotOwnRecord",
    "NotParticipant",
    "NotStaffLevel",
    "NotYourMessage",
    "OpenEhrRefused",
    "OpenEhrUnavailable",
    "OrganisationNotFound",
    "OrganisationTypeUnknown",
    "OrganisationUnknown",
    "Overloaded",
    "OwnHighRiskCompetency",
    "OwnLevel",
    "ParticipantNotFound",
    "PasswordTooCommon",
    "PasswordTooShort",
    "PatientAlreadyLinked",
    "PatientDeactivated",
    "PatientExists",
    "PatientHasNoAccount",
    "PatientNotFound",
    "PatientNotInFhir",
    "PermissionLevelUnknown",
    "PreconditionRequired",
    "QuillError",
    "ReauthenticationRequired",
    "RecordsMoving",
    "RegistrationTaken",
    "RequestInProgress",
    "RoleMissing",
    "SecondFactorUnreadable",
    "ServerStopping",
    "StaleEdit",
    "SuperadminMissing",
    "TooManyRequests",
    "TotpAlreadyEnabled",
    "TwoFactorRequired",
    "Unauthenticated",
    "Unavailable",
    "Unprocessable",
    "UserNotFound",
    "UsernameHeld",
    "UsernameTaken",
]
