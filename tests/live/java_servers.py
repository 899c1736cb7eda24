"""HAPI FHIR and EHRbase, from their makers' libraries and a main class of our own each."""

import base64
import json
import re
import secrets
from abc import abstractmethod
from pathlib import Path

from tests.live.java import Build, find_java
from tests.live.postgresql import PostgreSQL
from tests.live.processes import Process, Unavailable, answers, free_port
from tests.live.server import Server

_PROJECTS = Path(__file__).parent


class JavaServer(Server):
    """A Spring Boot server built from a Maven project beside this file."""

    patience = 240
    project: str
    main: str
    java: int

    def __init__(self, directory: Path, postgresql: PostgreSQL | None) -> None:
        super().__init__(directory)
        self._port = free_port()
        self._postgresql = postgresql
        self._build: Build | None = None

    def prepare(self) -> None:
        home = find_java(self.java)
        self._java = home.path / "bin" / "java"
        self._build = Build(_PROJECTS / self.project, self.directory / "build", home)
        self._build.begin()

    def process(self) -> Process:
        assert self._build is not None
        self._build.finish()
        settings = self.settings() | {
            "SERVER_PORT": str(self._port),
            "SERVER_ADDRESS": "127.0.0.1",
            "SERVER_TOMCAT_THREADS_MAX": "20",
            "SERVER_TOMCAT_THREADS_MINSPARE": "2",
        }
        # It runs for minutes: quick compiling and a simple collector start it sooner and leave the cores to the tests.
        modest = ["-Xmx1g", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
        command = [str(self._java), *modest, "-cp", self._build.classpath, self.main]
        return Process(command, self.directory, environment=settings)

    @abstractmethod
    def settings(self) -> dict[str, str]:
        """Return its settings as environment variables, the databases they name made."""

    def kill(self) -> None:
        if self._build is not None:
            self._build.abandon()
        super().kill()


class Hapi(JavaServer):
    """A HAPI FHIR R4 server, on PostgreSQL or, without one, on an H2 file."""

    name = "fhir"
    title = "HAPI FHIR"
    project = "hapi"
    main = "live.HapiServer"
    java = 17

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/fhir"

    @property
    def version(self) -> str:
        told = json.loads(answers(f"{self.url}/metadata?_elements=software", {}) or b"{}")
        kind = "PostgreSQL" if self._postgresql else "H2"
        return f"{told['software']['version']} on {kind}"

    @property
    def environment(self) -> dict[str, str]:
        return {"QUILL_TEST_FHIR_URL": self.url}

    def settings(self) -> dict[str, str]:
        password = secrets.token_urlsafe(24)
        if self._postgresql is None:
            url = f"jdbc:h2:file:{self.directory / 'database'}"
        else:
            self._postgresql.sql(f"CREATE ROLE hapi LOGIN PASSWORD '{password}';\nCREATE DATABASE hapi OWNER hapi;")
            url = f"jdbc:postgresql://127.0.0.1:{self._postgresql.port}/hapi"
        return {
            "SPRING_DATASOURCE_URL": url,
            "SPRING_DATASOURCE_USERNAME": "hapi",
            "SPRING_DATASOURCE_PASSWORD": password,
        }

    def ready(self) -> bool:
        return answers(f"{self.url}/metadata?_elements=software", {}) is not None


# What EHRbase's own database script makes: an owner that migrates, and a role without rights on the schema that serves.
_EHRBASE_ROLES = """
CREATE ROLE ehrbase LOGIN PASSWORD '{owner}';
CREATE ROLE ehrbase_restricted LOGIN PASSWORD '{server}';
CREATE DATABASE ehrbase OWNER ehrbase ENCODING 'UTF8' LOCALE 'C' TEMPLATE template0;
ALTER DATABASE ehrbase SET search_path TO ext;
ALTER DATABASE ehrbase SET intervalstyle = 'iso_8601';
"""
_EHRBASE_SCHEMAS = """
CREATE SCHEMA ehr AUTHORIZATION ehrbase;
CREATE SCHEMA ext AUTHORIZATION ehrbase;
CREATE EXTENSION "uuid-ossp" SCHEMA ext;
GRANT USAGE ON SCHEMA ehr, ext TO ehrbase_restricted;
ALTER DEFAULT PRIVILEGES FOR USER ehrbase IN SCHEMA ehr
  GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO ehrbase_restricted;
ALTER DEFAULT PRIVILEGES FOR USER ehrbase IN SCHEMA ehr GRANT USAGE, SELECT ON SEQUENCES TO ehrbase_restricted;
ALTER FUNCTION jsonb_path_query(jsonb, jsonpath, jsonb, boolean) ROWS 1;
"""


class Ehrbase(JavaServer):
    """An EHRbase on PostgreSQL, which asks for a name and a password unless told not to."""

    name = "openehr"
    title = "EHRbase"
    project = "ehrbase"
    main = "live.EhrbaseServer"
    java = 21

    def __init__(self, directory: Path, postgresql: PostgreSQL | None, *, asks_for_password: bool = True) -> None:
        super().__init__(directory, postgresql)
        self._credentials = ("quill", secrets.token_urlsafe(24)) if asks_for_password else None

    @property
    def url(self) -> str:
        return f"{self._root}/rest/openehr/v1"

    @property
    def version(self) -> str:
        told = (answers(f"{self._root}/rest/status", self._headers) or b"").decode()
        found = re.search(r'ehrbase_version"?[>:]"?([\d.]+)', told)
        return found[1] if found else "of an unknown version"

    @property
    def environment(self) -> dict[str, str]:
        user, password = self._credentials or ("", "")
        login = {"QUILL_TEST_OPENEHR_USER": user, "QUILL_TEST_OPENEHR_PASSWORD": password}
        return {"QUILL_TEST_OPENEHR_URL": self.url} | (login if self._credentials else {})

    def prepare(self) -> None:
        if self._postgresql is None:
            raise Unavailable("needs PostgreSQL, which is not there")
        super().prepare()

    def settings(self) -> dict[str, str]:
        assert self._postgresql is not None
        owner, server = secrets.token_urlsafe(24), secrets.token_urlsafe(24)
        self._postgresql.sql(_EHRBASE_ROLES.format(owner=owner, server=server))
        self._postgresql.sql(_EHRBASE_SCHEMAS, database="ehrbase")
        return self._security() | {
            "SPRING_DATASOURCE_URL": f"jdbc:postgresql://127.0.0.1:{self._postgresql.port}/ehrbase",
            "SPRING_DATASOURCE_USERNAME": "ehrbase_restricted",
            "SPRING_DATASOURCE_PASSWORD": server,
            "SPRING_FLYWAY_USER": "ehrbase",
            "SPRING_FLYWAY_PASSWORD": owner,
            "SERVER_NODENAME": "ehrbase.test",
        }

    def ready(self) -> bool:
        return answers(f"{self._root}/rest/status", self._headers) is not None

    def _security(self) -> dict[str, str]:
        if self._credentials is None:
            return {"SECURITY_AUTHTYPE": "NONE"}
        user, password = self._credentials
        return {
            "SECURITY_AUTHTYPE": "BASIC",
            "SECURITY_AUTHUSER": user,
            "SECURITY_AUTHPASSWORD": password,
            "SECURITY_AUTHADMINUSER": "administrator",
            "SECURITY_AUTHADMINPASSWORD": secrets.token_urlsafe(24),
        }

    @property
    def _root(self) -> str:
        return f"http://127.0.0.1:{self._port}/ehrbase"

    @property
    def _headers(self) -> dict[str, str]:
        if self._credentials is None:
            return {}
        return {"Authorization": "Basic " + base64.b64encode(":".join(self._credentials).encode()).decode()}
