"""The assembly: settings in, application out. The only place that knows which adapters stand behind the ports."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from functools import partial

import structlog
from fastapi import FastAPI
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.middleware.cors import CORSMiddleware

import quill.tables  # noqa: F401 - foreign keys name tables of other slices
from quill import published
from quill.accounts.routes import router as accounts_router
from quill.actor import Actor
from quill.adapters.fhir.embedded import EmbeddedFhirStore
from quill.adapters.home import RecordsElsewhere, check_home, refusing_moved
from quill.adapters.mail.log import LogMailer
from quill.adapters.mail.smtp import SmtpMailer
from quill.adapters.openehr.embedded import EmbeddedOpenEhrStore
from quill.adapters.push.vapid import Vapid, new_private_key
from quill.adapters.push.webpush import WebPushSender
from quill.adapters.remotes import remote_fhir, remote_openehr
from quill.audit.recorder import GroupRecorder
from quill.audit.seals import run_sealer
from quill.auth.service import Authenticator
from quill.auth.throttle import Throttle
from quill.conversations import service as conversations
from quill.conversations.routes import router as conversations_router
from quill.edge import problems, routing
from quill.edge.middleware import BodyLimit, Edge
from quill.events.routes import router as events_router
from quill.events.service import Streaming
from quill.external.routes import router as external_router
from quill.health.routes import router as health_router
from quill.health.service import HealthMonitor
from quill.intents import service as intents
from quill.kit.database import STATEMENT_SECONDS, Database
from quill.kit.ids import ConversationId
from quill.kit.logs import configure, where
from quill.kit.signals import InProcessSignals
from quill.kit.stopping import Stopping
from quill.kit.turns import end_tasks, finish_turn
from quill.letters import service as letters
from quill.letters.routes import router as letters_router
from quill.migrations.guard import require_schema
from quill.organisations.routes import router as organisations_router
from quill.outbox.delivery import MailCarrier
from quill.outbox.worker import Worker
from quill.patients.contact import FhirContact
from quill.patients.following import follow_for_ever
from quill.patients.routes import router as patients_router
from quill.patients.service import KIND as PATIENT_KIND
from quill.ports.mail import Mailer
from quill.ports.shared import Shared
from quill.prescriptions.routes import router as prescriptions_router
from quill.prescriptions.service import KIND as PRESCRIPTION_KIND
from quill.push.delivery import MayNotify, PushCarrier
from quill.push.routes import router as push_router
from quill.settings import Settings, kept_secret
from quill.staff.routes import router as staff_router
from quill.telemetry.switches import NO_TRACING, open_tracing, watched
from quill.unit import Services

__all__ = [
    "KINDS",
    "RecordsElsewhere",
    "build_services",
    "create_app",
    "from_environment",
    "require_records",
    "start_stores",
]

SWEEP_SECONDS = 5.0
HOME_SECONDS = 2.0
SWEEP_AFTER_START_SECONDS = 0.5
TEMPLATE_RETRY_SECONDS = 5.0

ROUTERS = (
    health_router,
    accounts_router,
    organisations_router,
    staff_router,
    patients_router,
    prescriptions_router,
    letters_router,
    conversations_router,
    push_router,
    events_router,
    external_router,
)

MayReadConversation = Callable[[AsyncSession, Actor, ConversationId], Awaitable[bool]]
"""Tells whether somebody may read a conversation at this moment."""

KINDS: Mapping[str, intents.Kind] = {
    kind.name: kind for kind in (PATIENT_KIND, PRESCRIPTION_KIND, letters.KIND, *conversations.KINDS)
}
"""What the sweep knows how to finish."""

log = structlog.get_logger()


def build_services(settings: Settings, database: Database | None = None, *, is_job: bool = False) -> Services:
    """Open the database and put the adapters behind the ports.

    Args:
        settings: which database and stores.
        database: one that is open already, in place of the one the settings name.
        is_job: whether nobody waits for an answer, so that a statement may take as long as it likes.

    Raises:
        OSError: the data directory cannot be made.
    """
    if settings.database_url is None:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
    database = database or Database(
        settings.resolved_database_url,
        pool_size=settings.database_pool_size,
        statement_seconds=None if is_job else STATEMENT_SECONDS,
    )
    fhir, openehr = remote_fhir(settings, database), remote_openehr(settings, database)
    shared = _open_shared(settings)
    former = frozenset(settings.openehr_former_systems)
    return Services(
        settings=settings,
        database=database,
        recorder=GroupRecorder(database),
        fhir_for=fhir.store_for if fhir else EmbeddedFhirStore,
        openehr_for=openehr.store_for if openehr else partial(EmbeddedOpenEhrStore, former_systems=former),
        signals=shared.signals if shared else InProcessSignals(),
        shared=shared,
        refuse_moved=refusing_moved(settings),
        closers=[elsewhere.close for elsewhere in (fhir, openehr, shared) if elsewhere is not None],
    )


def _open_shared(settings: Settings) -> Shared | None:
    if settings.redis_url is None:
        return None
    from quill.adapters.redis import RedisShared

    return RedisShared(settings.redis_url.get_secret_value())


async def start_stores(services: Services) -> None:
    """Give the stores what they need before the first record: the letter's template.

    Raises:
        OpenEhrUnavailable: 503, the store does not answer.
    """
    await letters.ensure_template(services)


def create_app(settings: Settings, *, open_services: Callable[[Settings], Services] = build_services) -> FastAPI:
    """Return the whole application; it opens its services when it starts and closes them when it stops."""
    tracing = open_tracing(settings)
    app = FastAPI(
        title="Quill",
        summary="A server for clinical communication.",
        version=published.VERSION,
        lifespan=_lifespan,
        openapi_url="/api/openapi.json" if not settings.is_production else None,
        docs_url=None,
        redoc_url=None,
        generate_unique_id_function=routing.operation_id,
        telemetry=tracing.config if tracing else NO_TRACING,
    )
    app.state.settings = settings
    app.state.tracing = tracing
    app.state.open_services = open_services
    app.state.may_read_conversation = conversations.may_read
    app.state.who_may_read_conversation = conversations.who_may_read
    app.state.stopping = Stopping()
    problems.install(app)
    routing.add_routers(app, ROUTERS)
    if not settings.is_production:
        published.add_interactive_pages(app)
    published.install(app)
    if tracing is None:
        # FastAPI's spans are named by its own search for the route.
        routing.find_quickly(app)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_credentials=True,
            allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
            allow_headers=["Content-Type", "X-CSRF-Token", "If-Match", "Idempotency-Key", "Last-Event-ID"],
            expose_headers=["ETag", "X-Request-ID", "Retry-After"],
            max_age=600,
        )
    # Inside the edge, so that its answer is a problem document too.
    app.add_middleware(BodyLimit, max_body_size=settings.max_body_bytes)
    app.add_middleware(
        Edge,
        public_url=settings.public_url,
        allowed_origins=settings.cors_origins,
        trusted_proxies=settings.trusted_proxies,
        max_body_bytes=settings.max_body_bytes,
        is_stopping=lambda: app.state.stopping.has_begun,
    )
    return app


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    services: Services = app.state.open_services(app.state.settings)
    app.state.services = services
    await require_schema(services.database)
    await _refuse_moved_records(services)
    throttle = Throttle(services.shared.counters) if services.shared else None
    app.state.authenticator = Authenticator(services.settings, throttle)
    app.state.health = HealthMonitor(services)
    app.state.stopping = Stopping(services.settings.stop_notice_seconds)
    app.state.fhir_contact = FhirContact()
    tasks = [
        asyncio.create_task(_sweep_for_ever(services), name="sweep"),
        asyncio.create_task(_ensure_letter_template(services), name="letter-template"),
        asyncio.create_task(_stop_when_moved(services), name="home"),
        asyncio.create_task(_follow_patients(services), name="follow"),
        asyncio.create_task(run_sealer(services.database, services.settings.resolved_anchor_file), name="sealer"),
    ]
    try:
        async with (
            watched(services.settings, services.database, app.state.tracing),
            _sharing(services),
            _telling(app, services),
        ):
            yield
    finally:
        # The recorder goes first: the sealer's last turn then seals the rows it drained.
        await services.recorder.stop()
        await end_tasks(tasks)
        await services.close()


@contextlib.asynccontextmanager
async def _sharing(services: Services) -> AsyncIterator[None]:
    """Pass wake-up calls between processes while the application runs."""
    if services.shared is None:
        yield
        return
    task = asyncio.create_task(services.shared.run(), name="shared")
    try:
        yield
    finally:
        await end_tasks([task])


@contextlib.asynccontextmanager
async def _telling(app: FastAPI, services: Services) -> AsyncIterator[None]:
    """Deliver mail and notifications, and feed live streams, while the application runs."""
    settings, may_read = services.settings, app.state.may_read_conversation
    streaming = Streaming(services, app.state.authenticator, app.state.who_may_read_conversation)
    app.state.streaming, feed = streaming, streaming.feed
    sender = _push_sender(settings)
    app.state.push_sender = sender
    notifications = PushCarrier(services, sender, _may_notify(may_read))
    worker = Worker(services, {"mail": MailCarrier(_mailer(settings)), "push": notifications})
    tasks = [asyncio.create_task(feed.run(), name="feed"), asyncio.create_task(worker.run(), name="outbox")]
    try:
        app.state.stopping.when_begun(feed.close)
        with app.state.stopping.heard():
            yield
    finally:
        feed.close()
        await worker.stop()
        await end_tasks(tasks)
        await notifications.finish()
        await streaming.finish()
        await sender.close()


def _mailer(settings: Settings) -> Mailer:
    if settings.smtp_url is None:
        return LogMailer(shows_links=not settings.is_production)
    return SmtpMailer(settings.smtp_url.get_secret_value(), settings.resolved_mail_from)


def _push_sender(settings: Settings) -> WebPushSender:
    if settings.vapid_private_key is not None:
        key = settings.vapid_private_key.get_secret_value()
    else:
        key = kept_secret(settings.data_dir / "vapid.key", new_private_key)
    vapid = Vapid(key, f"mailto:{settings.resolved_mail_from}")
    return WebPushSender(vapid, allows_loopback=not settings.is_production)


def _may_notify(may_read: MayReadConversation) -> MayNotify:
    async def may_notify(session: AsyncSession, actor: Actor, facts: Mapping[str, str]) -> bool:
        return await may_read(session, actor, ConversationId(int(facts["conversation_id"])))

    return may_notify


async def require_records(services: Services) -> None:
    """Return when the clinical records live where the settings say.

    Raises:
        RecordsElsewhere: they do not; says what to do.
    """
    await check_home(services.database, services.settings)


async def _refuse_moved_records(services: Services) -> None:
    try:
        await require_records(services)
    except RecordsElsewhere as error:
        log.error("records_elsewhere", remedy=str(error))
        await services.close()
        raise


async def _stop_when_moved(services: Services) -> None:
    """Stop the process once the records have moved: from then on what it shows is old, and what it writes is refused.

    Whoever starts it again is told which settings are missing.
    """
    while True:
        await asyncio.sleep(HOME_SECONDS)
        try:
            await check_home(services.database, services.settings)
        except RecordsElsewhere as error:
            log.error("records_elsewhere", remedy=str(error))
            signal.raise_signal(signal.SIGTERM)
            return
        except Exception as error:  # noqa: BLE001 - the database may be away for a while; looking again outlives that
            log.warning("home_not_checked", cause=where(error))


async def _follow_patients(services: Services) -> None:
    """Keep the list up to date with changes made straight in a FHIR server; embedded records change through us only."""
    if services.settings.fhir_url is not None and services.settings.clinical_services_enabled:
        await follow_for_ever(services)


async def _sweep_for_ever(services: Services) -> None:
    # Whoever waits for the program to come up goes first; what a crash left has waited longer than this already.
    await asyncio.sleep(SWEEP_AFTER_START_SECONDS)
    while True:
        try:
            await finish_turn(intents.sweep(services, KINDS))
        except Exception as error:  # noqa: BLE001 - the database may be away for a while; the sweep outlives that
            log.warning("sweep_failed", cause=where(error))
        await asyncio.sleep(SWEEP_SECONDS)


async def _ensure_letter_template(services: Services) -> None:
    """Teach the openEHR store what a letter is; until it answers, letters are 503 and everything else works."""
    while services.settings.clinical_services_enabled:
        try:
            await finish_turn(start_stores(services))
        except Exception as error:  # noqa: BLE001 - the store may be away for a while; starting outlives that
            log.warning("letter_template_missing", cause=where(error))
            await asyncio.sleep(TEMPLATE_RETRY_SECONDS)
        else:
            return


def from_environment() -> FastAPI:
    """Return the application for the settings of the environment; what the server's workers call."""
    settings = Settings()
    configure(settings.log_level, as_json=settings.is_production)
    return create_app(settings)
