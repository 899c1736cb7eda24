#!/bin/sh
# Make the databases and roles of Quill, HAPI FHIR and EHRbase on a new PostgreSQL, once.
#
# The official image runs this from /docker-entrypoint-initdb.d with POSTGRES_USER; anywhere else set libpq's PGHOST,
# PGUSER and PGPASSWORD too. EHRbase migrates as the owner of its schemas and serves as a role that owns nothing.
set -eu
: "${DATABASE_PASSWORD_QUILL:?}" "${DATABASE_PASSWORD_HAPI:?}"
: "${DATABASE_PASSWORD_EHRBASE_OWNER:?}" "${DATABASE_PASSWORD_EHRBASE:?}"

sql() {
  psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --username "${POSTGRES_USER:-postgres}" "$@"
}

# Passwords reach psql as variables of its own, quoted by it, and never stand in a command line.
sql --dbname postgres <<'SQL'
\getenv quill DATABASE_PASSWORD_QUILL
\getenv hapi DATABASE_PASSWORD_HAPI
\getenv owner DATABASE_PASSWORD_EHRBASE_OWNER
\getenv server DATABASE_PASSWORD_EHRBASE
CREATE ROLE quill LOGIN PASSWORD :'quill';
CREATE ROLE hapi LOGIN PASSWORD :'hapi';
CREATE ROLE ehrbase LOGIN PASSWORD :'owner';
CREATE ROLE ehrbase_restricted LOGIN PASSWORD :'server';
CREATE DATABASE quill OWNER quill ENCODING 'UTF8' TEMPLATE template0;
CREATE DATABASE hapi OWNER hapi ENCODING 'UTF8' TEMPLATE template0;
CREATE DATABASE ehrbase OWNER ehrbase ENCODING 'UTF8' LOCALE 'C' TEMPLATE template0;
REVOKE ALL ON DATABASE quill, hapi, ehrbase FROM PUBLIC;
GRANT CONNECT ON DATABASE ehrbase TO ehrbase_restricted;
ALTER DATABASE ehrbase SET search_path TO ext;
ALTER DATABASE ehrbase SET intervalstyle = 'iso_8601';
SQL

sql --dbname ehrbase <<'SQL'
CREATE SCHEMA ehr AUTHORIZATION ehrbase;
CREATE SCHEMA ext AUTHORIZATION ehrbase;
CREATE EXTENSION "uuid-ossp" SCHEMA ext;
GRANT USAGE ON SCHEMA ehr, ext TO ehrbase_restricted;
ALTER DEFAULT PRIVILEGES FOR ROLE ehrbase IN SCHEMA ehr
  GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO ehrbase_restricted;
ALTER DEFAULT PRIVILEGES FOR ROLE ehrbase IN SCHEMA ehr GRANT USAGE, SELECT ON SEQUENCES TO ehrbase_restricted;
-- The planner takes a path in a document for a thousand rows; it is one.
ALTER FUNCTION jsonb_path_query(jsonb, jsonpath, jsonb, boolean) ROWS 1;
SQL
