"""Every setting, typed, from environment variables named ``QUILL_…``.

There is no global instance: the assembly reads the environment once and passes the settings on. With none set, Quill
runs whole: SQLite, embedded FHIR and openEHR stores, and secrets it generates and keeps in the data directory.
"""

import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

MINIMUM_SECRET_CHARACTERS = 32
"""RFC 7518, section 3.2: a key for HS256 has at least 256 bits."""


class Settings(BaseSettings):
    """What the operator decides. Reading them touches nothing but the environment."""

    model_config = SettingsConfigDict(
        env_prefix="QUILL_", env_file=None, env_ignore_empty=True, extra="ignore", frozen=True
    )

    environment: Literal["development", "production"] = Field(
        "development", description="`production` refuses missing secrets, plain http and a wildcard CORS origin."
    )
    data_dir: Path = Field(Path("data"), description="Where the embedded database and generated secrets are kept.")
    database_url: str | None = Field(
        None, description="PostgreSQL as `postgresql+asyncpg://user:password@host/name`; SQLite in the data directory."
    )
    database_pool_size: int = Field(
        10, ge=1, le=200, description="Connections a worker opens; twice that in a burst, and it keeps them."
    )
    redis_url: SecretStr | None = Field(
        None,
        description="Redis as `redis[s]://user:password@host:port/number`, for throttles and wake-up calls between "
        "processes; without it each process counts by itself.",
    )
    fhir_url: str | None = Field(
        None, description="Base URL of a FHIR R4 server, such as `http://hapi:8080/fhir`; embedded when unset."
    )
    fhir_authorization: SecretStr | None = Field(
        None, description="Sent to the FHIR server as its `Authorization` header, such as `Bearer …`."
    )
    openehr_url: str | None = Field(
        None, description="Base URL of EHRbase, such as `http://ehrbase:8080/ehrbase`; embedded when unset."
    )
    openehr_user: str | None = Field(None, description="Basic authentication user for EHRbase.")
    openehr_password: SecretStr | None = Field(None, description="Basic authentication password for EHRbase.")
    openehr_former_systems: list[str] = Field(
        default=["quill.local"],
        description="System ids letters had before they moved here, as a JSON list: a version uid that somebody noted "
        "with one of them stays good. `quill copy-clinical` says when one is to be added.",
    )
    clinical_timeout_seconds: float = Field(
        8.0, gt=0, le=20, description="How long one call to the FHIR or openEHR server may take, repetitions included."
    )
    clinical_services_enabled: bool = Field(True, description="`false` answers 503 on every clinical route.")
    secret_key: SecretStr | None = Field(
        None, description="Signs tokens; 32 characters or more. Generated into the data directory in development."
    )
    previous_secret_key: SecretStr | None = Field(
        None, description="The key before the last rotation; still accepted, never used to sign."
    )
    public_url: str = Field("http://127.0.0.1:8000", description="Where people reach Quill; used in links and origins.")
    cors_origins: list[str] = Field(
        default_factory=list, description="Other origins whose pages may call the API, as a JSON list."
    )
    trusted_proxies: list[str] = Field(
        default_factory=list, description="Addresses or networks whose X-Forwarded-For is believed, as a JSON list."
    )
    smtp_url: SecretStr | None = Field(
        None, description="Mail server as `smtp[s]://user:password@host:port`; without it no mail is sent."
    )
    mail_from: str | None = Field(
        None, max_length=255, description="Sender address of mail; `noreply@` the host of the public URL when unset."
    )
    vapid_private_key: SecretStr | None = Field(
        None,
        description="Signs push notifications: a P-256 private number as unpadded base64url. Generated into the data "
        "directory when unset; must be the same for every worker and stay the same, or devices must subscribe anew.",
    )
    cookie_domain: str | None = Field(None, description="Domain attribute of the cookies.")
    public_organisation_list: bool = Field(
        True,
        description="Names of organisations are shown to strangers, for the registration form's picker; `false` shows "
        "none, and people are made by an admin or join by the number they were told.",
    )
    require_professional_registration: bool = Field(
        False,
        description="`true` lets a profession that needs a registration (GMC, NMC, HCPC, GPhC) count only for people "
        "whose registration is recorded. Record them first, then turn this on.",
    )
    access_token_seconds: int = Field(15 * 60, ge=10, description="Lifetime of access and CSRF tokens.")
    refresh_token_seconds: int = Field(7 * 24 * 3600, ge=60, description="Lifetime of refresh tokens.")
    password_reset_seconds: int = Field(30 * 60, ge=60, description="Lifetime of the links that reset a password.")
    password_min_length: int | None = Field(
        None, ge=6, le=128, description="Overrides 6 (registration) and 8 in development, 12 in production."
    )
    argon2_time_cost: int = Field(3, ge=1, description="Argon2id passes.")
    argon2_memory_kib: int = Field(65536, ge=8, description="Argon2id memory per hash in KiB.")
    argon2_parallelism: int = Field(4, ge=1, description="Argon2id lanes.")
    stop_notice_seconds: float = Field(
        0.0,
        ge=0,
        le=300,
        description="How long a server that is told to terminate goes on answering while readiness says 503, so that a "
        "load balancer turns elsewhere first.",
    )
    max_body_bytes: int = Field(1_048_576, ge=1024, description="Largest request body taken.")
    metrics_port: int | None = Field(
        None, ge=1, le=65535, description="Port that answers `GET /metrics` for Prometheus; none when unset."
    )
    metrics_host: str = Field("127.0.0.1", description="Address the metrics are served at; it asks for no login.")
    otlp_endpoint: str | None = Field(
        None,
        pattern="^https?://",
        description="Base URL of an OpenTelemetry collector (OTLP over HTTP), such as `http://collector:4318`, that "
        "gets traces; none when unset. Needs the extra `quill[otel]`.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least severe log line kept.")
    audit_anchor_file: Path | None = Field(
        None, description="File that every audit seal is appended to; `audit-anchors.log` in the data directory."
    )

    @model_validator(mode="after")
    def _refuse_unsafe_production(self) -> Self:
        problems = self.production_problems() if self.is_production else []
        problems += [
            f"{name} must be an http or https address without user, query or fragment."
            for name, url in (("QUILL_FHIR_URL", self.fhir_url), ("QUILL_OPENEHR_URL", self.openehr_url))
            if url is not None and not _is_base_url(url)
        ]
        if (self.openehr_user is None) != (self.openehr_password is None):
            problems.append("QUILL_OPENEHR_USER and QUILL_OPENEHR_PASSWORD belong together.")
        redis_url = self.redis_url.get_secret_value() if self.redis_url is not None else None
        if redis_url is not None and not redis_url.startswith(("redis://", "rediss://")):
            problems.append("QUILL_REDIS_URL must begin with redis:// or rediss://.")
        if self.secret_key is not None and len(self.secret_key.get_secret_value()) < MINIMUM_SECRET_CHARACTERS:
            problems.append(f"QUILL_SECRET_KEY must have at least {MINIMUM_SECRET_CHARACTERS} characters.")
        if problems:
            raise ValueError(" ".join(problems))
        return self

    def production_problems(self) -> list[str]:
        """Return what would make these settings unsafe in production, a sentence each."""
        problems = []
        if self.secret_key is None:
            problems.append("QUILL_SECRET_KEY must be set.")
        elif len(set(self.secret_key.get_secret_value())) < 10:
            problems.append("QUILL_SECRET_KEY looks like a placeholder; use `openssl rand -base64 48`.")
        if urlsplit(self.public_url).scheme != "https":
            problems.append("QUILL_PUBLIC_URL must begin with https://.")
        if "*" in self.cors_origins:
            problems.append("QUILL_CORS_ORIGINS must name origins, not '*'.")
        return problems

    @property
    def is_production(self) -> bool:
        """Tell whether the strict rules apply."""
        return self.environment == "production"

    @property
    def has_secure_cookies(self) -> bool:
        """Tell whether cookies are only to travel over https."""
        return urlsplit(self.public_url).scheme == "https"

    @property
    def resolved_database_url(self) -> str:
        """Return the database to use; the embedded one when none was named."""
        url = self.database_url or f"sqlite+aiosqlite:///{self.data_dir.absolute()}/quill.sqlite3"
        return url.replace("postgresql://", "postgresql+asyncpg://", 1).replace(
            "postgres://", "postgresql+asyncpg://", 1
        )

    @property
    def resolved_anchor_file(self) -> Path:
        """Return the file audit seals are anchored in."""
        return self.audit_anchor_file or self.data_dir / "audit-anchors.log"

    @property
    def source_uri(self) -> str:
        """Return what names this Quill as the source of a record (FHIR R4, ``Meta.source``)."""
        return self.public_url.rstrip("/")

    @property
    def resolved_mail_from(self) -> str:
        """Return the sender address of mail."""
        return self.mail_from or f"noreply@{urlsplit(self.public_url).hostname}"

    def signing_key(self) -> str:
        """Return the key tokens are signed with; generated once and kept with mode 0600 in development.

        Raises:
            OSError: the data directory cannot be written.
        """
        if self.secret_key is not None:
            return self.secret_key.get_secret_value()
        return kept_secret(self.data_dir / "secret.key")

    def accepted_keys(self) -> list[str]:
        """Return the signing key, then the previous one where there is one.

        Raises:
            OSError: the data directory cannot be written.
        """
        previous = self.previous_secret_key
        return [self.signing_key(), *([previous.get_secret_value()] if previous is not None else [])]


def _is_base_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        has_port = parts.port is None or parts.port > 0
    except ValueError:
        return False
    is_bare = not (parts.username or parts.password or parts.query or parts.fragment)
    return parts.scheme in {"http", "https"} and bool(parts.hostname) and has_port and is_bare


def kept_secret(path: Path, make: Callable[[], str] = lambda: secrets.token_urlsafe(48)) -> str:
    """Return the secret kept in a file, making it on first use; two processes starting at once agree on one.

    Args:
        path: where it is kept, with mode 0600.
        make: returns a fresh one.

    Raises:
        OSError: the directory cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(make())
            file.flush()
            os.fsync(file.fileno())
        try:
            # link() fails where the name is taken, so whoever is second uses the first one's secret.
            os.link(draft, path)
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    return path.read_text().strip()
