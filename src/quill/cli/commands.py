"""Every command, its words and its options; what it does is in the module it imports."""

import datetime
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    name="quill",
    help="A server for clinical communication.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
audit_app = typer.Typer(help="The audit trail.", no_args_is_help=True)
app.add_typer(audit_app, name="audit")


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=0, max=65535)] = 8000,
    workers: Annotated[int, typer.Option(help="Processes to serve with.", min=1, max=64)] = 1,
    demo: Annotated[bool, typer.Option("--demo", help="Migrate, fill an empty database with a demo clinic.")] = False,
) -> None:
    """Serve the API until it is told to stop; requests under way are finished first."""
    from quill.kit import garbage

    garbage.pause()
    from quill.cli import serving

    serving.serve(host=host, port=port, workers=workers, is_demo=demo)


@app.command()
def migrate(
    check: Annotated[
        bool, typer.Option("--check", help="Only tell whether migrations and models agree, on a scratch database.")
    ] = False,
) -> None:
    """Bring the database's tables up to date."""
    from quill.cli import schema

    schema.check() if check else schema.migrate()


@app.command()
def create_organisation(
    name: Annotated[str, typer.Option(help="What people call it.")],
    type: Annotated[str, typer.Option(help="hospital_team, gp_practice, private_clinic, department, …")],  # noqa: A002
    location: Annotated[str | None, typer.Option(help="Where it is.")] = None,
) -> None:
    """Create an organisation and print its id."""
    from quill.cli import people

    people.create_organisation(name=name, kind=type, location=location)


@app.command()
def create_user(
    username: Annotated[str, typer.Option(help="What the person signs in with.")],
    email: Annotated[str, typer.Option(help="The person's e-mail address.")],
    permission: Annotated[str, typer.Option(help="patient, staff, admin, superadmin, …")] = "patient",
    profession: Annotated[str, typer.Option(help="A profession of the catalogue.")] = "patient",
    role: Annotated[list[str] | None, typer.Option(help="A role; repeat for several.")] = None,
    organisation: Annotated[list[str] | None, typer.Option(help="Name of an organisation to join; repeatable.")] = None,
    registration: Annotated[
        list[str] | None, typer.Option(help="A professional registration, as `GMC:1234567`; repeatable.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="The person's full name.")] = None,
    password_stdin: Annotated[bool, typer.Option("--password-stdin", help="Read it from standard input.")] = False,
) -> None:
    """Create somebody who can sign in, and print the id."""
    from quill.cli import people

    people.create_user(
        people.Wanted(
            username=username,
            email=email,
            permission=permission,
            profession=profession,
            roles=tuple(role or ()),
            organisations=tuple(organisation or ()),
            registrations=tuple(registration or ()),
            full_name=name,
        ),
        from_stdin=password_stdin,
    )


@app.command()
def demo(
    patients: Annotated[int, typer.Option(help="How many patients.", min=0)] = 12,
    conversations: Annotated[int, typer.Option(help="How many conversations.", min=0)] = 4,
    messages: Annotated[int, typer.Option(help="How many messages in all.", min=0)] = 16,
    as_json: Annotated[bool, typer.Option("--json", help="Print who can sign in as JSON.")] = False,
) -> None:
    """Fill an empty database with an invented clinic and print who can sign in."""
    from quill.cli import demo as clinic

    clinic.fill(clinic.Size(patients=patients, conversations=conversations, messages=messages), as_json=as_json)


@app.command()
def import_patients(
    file: Annotated[Path, typer.Argument(help="FHIR Patients, one a line (NDJSON), or a Bundle.")],
    organisation: Annotated[str, typer.Option(help="Name of the organisation whose care they join.")],
    replace: Annotated[bool, typer.Option("--replace", help="Let changed records replace the known ones.")] = False,
) -> None:
    """Import FHIR Patients; those that cannot be taken are listed with line and reason, the rest goes in."""
    from quill.cli import importing

    importing.import_file(file, organisation, is_replacing=replace)


@app.command()
def reconcile(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell; change nothing.")] = False,
) -> None:
    """Compare the tables with the record stores and mend the tables; tells what a store has lost."""
    from quill.cli import reconciling

    reconciling.reconcile(mends=not dry_run)


@app.command()
def copy_clinical(
    to_fhir: Annotated[str | None, typer.Option(help="Base URL of the FHIR server the FHIR records go to.")] = None,
    to_openehr: Annotated[str | None, typer.Option(help="Base URL of the EHRbase the letters go to.")] = None,
    to_embedded: Annotated[
        bool, typer.Option("--to-embedded", help="The way back: from the servers the settings name into the database.")
    ] = False,
    verify: Annotated[bool, typer.Option("--verify", help="Only compare both sides; copy and move nothing.")] = False,
) -> None:
    """Move clinical records to other servers, or back; start it again if it was cut off, it goes on from there."""
    from quill.cli import copying

    copying.copy_clinical(copying.Wanted(to_fhir, to_openehr, to_embedded=to_embedded, verifies=verify))


@app.command()
def rebuild_projection() -> None:
    """Make the conversations' tables anew from the FHIR store alone."""
    from quill.cli import projection

    projection.rebuild()


@app.command()
def reseal_secrets() -> None:
    """Seal everything kept under the previous secret key under the current one, and say how much that was."""
    from quill.cli import secret_key

    secret_key.reseal()


@app.command()
def openapi(
    file: Annotated[Path | None, typer.Argument(help="Where to write it; standard output when left out.")] = None,
    check: Annotated[Path | None, typer.Option(help="Only tell whether this file is up to date.")] = None,
) -> None:
    """Write the published API as OpenAPI 3.1."""
    from quill.cli import reference

    reference.write_openapi(file=file, check=check)


@app.command()
def reference(
    check: Annotated[bool, typer.Option("--check", help="Only tell whether the pages are up to date.")] = False,
    directory: Annotated[Path, typer.Option(help="Where the pages are.")] = Path("docs/reference"),
) -> None:
    """Write the reference pages: settings, errors, permissions, commands."""
    from quill.cli import reference as pages

    pages.write_pages(directory, is_check=check)


@app.command()
def backup(
    file: Annotated[Path, typer.Argument(help="Where to write it; must not exist yet.")],
) -> None:
    """Write database, secrets and audit anchors of an embedded installation into one file, running or not."""
    from quill.cli import backup as backups

    backups.backup(file)


@app.command()
def restore(
    file: Annotated[Path, typer.Argument(help="A file that `quill backup` wrote.")],
) -> None:
    """Restore a backup into an empty data directory, after checking all of it."""
    from quill.cli import backup as backups

    backups.restore(file)


@app.command()
def doctor() -> None:
    """Tell what is wrong with this installation, and how to mend it."""
    from quill.cli import doctor as checks

    checks.examine()


@audit_app.command("export")
def audit_export(
    since: Annotated[datetime.datetime | None, typer.Option(help="Only from this UTC time on.")] = None,
    until: Annotated[datetime.datetime | None, typer.Option(help="Only before this UTC time.")] = None,
    patient: Annotated[str | None, typer.Option(help="Only about this patient.")] = None,
    output: Annotated[Path | None, typer.Option(help="New file to write; standard output when left out.")] = None,
) -> None:
    """Write the trail as FHIR R4 AuditEvents, one a line (NDJSON), oldest first; the export is audited itself."""
    from quill.cli import trail

    trail.export_trail(since=since, until=until, patient_id=patient, output=output)


@audit_app.command("verify")
def audit_verify(
    anchors: Annotated[Path | None, typer.Option(help="File the seals were anchored in, kept elsewhere.")] = None,
) -> None:
    """Recompute every seal and name the first bad row."""
    from quill.cli import trail

    trail.verify_trail(anchors)
