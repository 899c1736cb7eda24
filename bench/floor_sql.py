"""The floor's statements: what each scenario cannot do without, on the tables that Quill filled, with no rights asked.

Written for PostgreSQL; ``floor_store`` says the few words SQLite has others for.
"""

ME = """
SELECT a.id, a.username, a.full_name, a.email, a.permission_level, a.is_totp_enabled, a.patient_id, a.base_profession,
       (SELECT string_agg(r.role, ',') FROM user_role r WHERE r.user_id = a.id) AS roles
FROM login l JOIN user_account a ON a.id = l.user_id WHERE l.id = $1
"""

HASH_OF = "SELECT password_hash FROM user_account WHERE username_folded = $1"

REFRESH = """
UPDATE login SET generation = generation + 1, refreshed_at = CURRENT_TIMESTAMP WHERE id = $1 RETURNING generation
"""

PATIENTS_OF = """
SELECT d.document FROM organisation_patient_member m
JOIN patient_index i ON i.patient_id = m.patient_id JOIN patient_document d ON d.patient_id = i.patient_id
WHERE m.organisation_id = $1 AND i.is_active ORDER BY i.sort_name, i.patient_id LIMIT $2
"""

COUNT_PATIENTS_OF = """
SELECT count(*) FROM organisation_patient_member m JOIN patient_index i ON i.patient_id = m.patient_id
WHERE m.organisation_id = $1 AND i.is_active
"""

PATIENTS = """
SELECT d.document FROM patient_index i JOIN patient_document d ON d.patient_id = i.patient_id
WHERE i.is_active AND (i.sort_name, i.patient_id) > ($1, $2) ORDER BY i.sort_name, i.patient_id LIMIT $3
"""

PATIENT_SEARCH = """
SELECT d.document FROM patient_index i JOIN patient_document d ON d.patient_id = i.patient_id
WHERE i.is_active AND i.search_text LIKE $1 ORDER BY i.sort_name, i.patient_id LIMIT $2
"""

COUNT_SEARCH = "SELECT count(*) FROM patient_index i WHERE i.is_active AND i.search_text LIKE $1"

PATIENT = "SELECT document FROM fhir_resource WHERE resource_type = 'Patient' AND id = $1"

LETTERS = """
SELECT c.object_id, c.system_id, c.version, c.title, c.started_at, c.composer_name
FROM openehr_ehr e JOIN openehr_composition c ON c.ehr_id = e.ehr_id
WHERE e.subject_id = $1 AND c.is_latest ORDER BY c.started_at DESC, c.object_id DESC LIMIT 1000
"""

LETTER = """
SELECT c.document, c.title, c.started_at, c.composer_name, c.version
FROM openehr_ehr e JOIN openehr_composition c ON c.ehr_id = e.ehr_id
WHERE e.subject_id = $1 AND c.object_id = $2 AND c.is_latest
"""

_CONVERSATION_COLUMNS = """
c.id, c.fhir_conversation_id, c.patient_id, c.subject, c.status, c.status_changed_at, c.status_changed_by_user_id,
c.created_at, c.updated_at, c.include_patient_as_participant, c.last_message_preview, c.last_message_at
"""

_PEOPLE = """
SELECT p.conversation_id, p.user_id, a.username, coalesce(a.full_name, a.username) AS display_name, p.role,
       p.joined_at, p.added_by_user_id
FROM conversation_participant p JOIN user_account a ON a.id = p.user_id
"""

CONVERSATIONS = f"""
SELECT {_CONVERSATION_COLUMNS}, m.unread_count
FROM conversation_participant m JOIN conversation c ON c.id = m.conversation_id
WHERE m.user_id = $1 ORDER BY m.active_at DESC, m.conversation_id DESC LIMIT $2
"""  # noqa: S608 - put together from the constants above

PEOPLE_OF_PAGE = f"""
{_PEOPLE} WHERE p.conversation_id IN (
  SELECT m.conversation_id FROM conversation_participant m
  WHERE m.user_id = $1 ORDER BY m.active_at DESC, m.conversation_id DESC LIMIT $2)
ORDER BY p.conversation_id, p.joined_at, p.user_id
"""  # noqa: S608 - put together from the constants above

CONVERSATION = f"SELECT {_CONVERSATION_COLUMNS} FROM conversation c WHERE c.id = $1"  # noqa: S608 - as above

PEOPLE = f"{_PEOPLE} WHERE p.conversation_id = $1 ORDER BY p.joined_at, p.user_id"

MESSAGES = """
SELECT m.id, m.fhir_communication_id, m.sender_id, a.username AS sender_username,
       coalesce(a.full_name, a.username) AS sender_display_name, m.body, m.amends_id, m.created_at
FROM message m JOIN user_account a ON a.id = m.sender_id
WHERE m.conversation_id = $1 ORDER BY m.created_at DESC, m.id DESC LIMIT $2
"""

TAKE_NUMBER = {
    "postgresql": "SELECT nextval(pg_get_serial_sequence('message', 'id'))",
    "sqlite": "UPDATE number_series SET last = last + 1 WHERE name = 'message' RETURNING last",
}

TOUCH_CONVERSATION = """
UPDATE conversation SET updated_at = $2, last_message_at = $2, last_message_preview = $3 WHERE id = $1
RETURNING patient_id, fhir_conversation_id
"""

INSERT_MESSAGE = """
INSERT INTO message (id, fhir_communication_id, conversation_id, sender_id, body, created_at)
VALUES ($1, $2, $3, $4, $5, $6)
"""

INSERT_RESOURCE = """
INSERT INTO fhir_resource (resource_type, id, version, last_updated, is_deleted, document, subject)
VALUES ('Communication', $1, 1, $2, $3, $4, $5)
"""

INSERT_VERSION = """
INSERT INTO fhir_resource_version (resource_type, id, version, last_updated, is_deleted, document)
VALUES ('Communication', $1, 1, $2, $3, $4)
"""

INSERT_KEY = """
INSERT INTO fhir_search_key (resource_type, id, parameter, position, system, value)
VALUES ('Communication', $1, 'part-of', 0, '', $2)
"""

TOUCH_PEOPLE = """
UPDATE conversation_participant SET active_at = $2, unread_count = unread_count + CAST(user_id <> $3 AS integer)
WHERE conversation_id = $1
"""

TOUCH_PLACES = "UPDATE conversation_organisation SET active_at = $2 WHERE conversation_id = $1"

INSERT_NOTICE = """
INSERT INTO outbox_entry (id, channel, state, attempts, next_attempt_at, give_up_at, created_at, closed_at)
VALUES ($1, 'push', 'sent', 1, $2, $2, $2, $2)
"""
"""Delivered already, so that Quill's worker leaves it alone."""

INSERT_EVENT = """
INSERT INTO live_event (kind, patient_id, conversation_id, facts, created_at) VALUES ($1, $2, $3, $4, $5)
"""

READ_MESSAGE = "SELECT patient_id FROM conversation WHERE id = $1"

MARK_READ = """
UPDATE conversation_participant SET last_read_message_id = $3, last_read_at = $4, unread_count =
  (SELECT count(*) FROM message m WHERE m.conversation_id = $1 AND m.sender_id <> $2 AND m.id > $3)
WHERE conversation_id = $1 AND user_id = $2
"""
