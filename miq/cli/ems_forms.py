"""`miq ems add` and `miq ems edit`: what may be said of a manager, and the check that follows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from miq.cli import ems_wait
from miq.cli.connect import encryption_key, open_database, settings_of
from miq.cli.output import AsJson, print_json
from miq.cli.secret_input import (
    HttpProxy,
    HttpProxyEnv,
    PasswordEnv,
    PasswordFile,
    PasswordStdin,
    SecretSource,
    ask,
    proxy_url,
)
from miq.db import Database
from miq.errors import UsageError
from miq.managers.add import AddManager, add_manager
from miq.managers.edit import EditManager, edit_manager
from miq.managers.find import find_manager, find_manager_type
from miq.models import ExtManagementSystem
from miq.settings import Settings

Region = Annotated[str | None, typer.Option(help="The provider's region, e.g. us-east-1.")]
Userid = Annotated[str | None, typer.Option(help="Who we are: user, access key id.")]
EndpointUrl = Annotated[str | None, typer.Option(help="Another address of the API than the provider's own.")]
ServiceAccount = Annotated[str | None, typer.Option(help="Role to assume (Amazon: its ARN).")]
ZoneName = Annotated[str | None, typer.Option("--zone", help="Zone whose servers look after it.")]
CaFile = Annotated[Path | None, typer.Option(help="CA certificates in PEM.")]
Check = Annotated[bool, typer.Option("--check/--no-check", help="Check the credentials at once.")]


def add(
    kind: Annotated[str, typer.Argument(metavar="TYPE", help="One of `miq ems types`, e.g. ec2.")],
    name: Annotated[str, typer.Argument(help="What to call it.")],
    region: Region = None,
    userid: Userid = None,
    password_stdin: PasswordStdin = False,
    password_file: PasswordFile = None,
    password_env: PasswordEnv = None,
    endpoint_url: EndpointUrl = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="Do not verify the certificate.")] = False,
    ca_file: CaFile = None,
    http_proxy: HttpProxy = None,
    http_proxy_env: HttpProxyEnv = None,
    service_account: ServiceAccount = None,
    zone: ZoneName = None,
    check: Check = True,
    as_json: AsJson = False,
) -> None:
    """Add a manager; its secret is asked for, or read from where an option says."""
    labels = find_manager_type(kind).credential_labels
    source = SecretSource(password_stdin, password_file, password_env)
    userid, password = _credentials(labels, userid, source, service_account)
    wanted = AddManager(
        type=kind,
        name=name,
        region=region,
        userid=userid,
        password=password,
        service_account=service_account,
        endpoint_url=endpoint_url,
        verify_ssl=not insecure,
        certificate_authority=_certificates(ca_file),
        http_proxy=proxy_url(http_proxy, http_proxy_env),
        zone=zone,
    )
    with open_database() as database:
        settings = settings_of(database)  # garbage in them is told before anything is written
        with database.session() as session:
            ems = add_manager(session, encryption_key(session), wanted)
        _finish(database, "added", ems, settings if check else None, as_json)


def _credentials(
    labels: Any,  # noqa: ANN401 - a mapping of the provider's
    userid: str | None,
    source: SecretSource,
    service_account: str | None,
) -> tuple[str | None, str | None]:
    """User and secret. A role to assume can do without both: the machine's own identity assumes it."""
    given = source.read()
    if userid is None and given is None and service_account:
        return None, None
    userid = userid or ask(labels["userid"], "--userid")
    return userid, given or SecretSource().read_or_ask(labels["password"])


def edit(
    manager: Annotated[str, typer.Argument(help="Name or id.")],
    name: Annotated[str | None, typer.Option(help="A new name.")] = None,
    region: Region = None,
    userid: Userid = None,
    ask_password: Annotated[bool, typer.Option("--password", help="Ask for a new secret.")] = False,
    password_stdin: PasswordStdin = False,
    password_file: PasswordFile = None,
    password_env: PasswordEnv = None,
    endpoint_url: EndpointUrl = None,
    insecure: Annotated[
        bool | None, typer.Option("--insecure/--secure", help="Whether to verify certificates.")
    ] = None,
    ca_file: CaFile = None,
    http_proxy: HttpProxy = None,
    http_proxy_env: HttpProxyEnv = None,
    service_account: ServiceAccount = None,
    zone: ZoneName = None,
    check: Check = True,
    as_json: AsJson = False,
) -> None:
    """Change a manager; what is not named stays, an empty value ("") takes away."""
    source = SecretSource(password_stdin, password_file, password_env)
    changes = EditManager(
        name=name,
        region=region,
        userid=userid,
        password=source.read_or_ask("New secret") if ask_password else source.read(),
        service_account=service_account,
        endpoint_url=endpoint_url,
        verify_ssl=None if insecure is None else not insecure,
        certificate_authority=_certificates(ca_file),
        http_proxy=proxy_url(http_proxy, http_proxy_env),
        zone=zone,
    )
    if changes == EditManager():
        raise UsageError("nothing to change: name an option, see `miq ems edit --help`")
    with open_database() as database:
        settings = settings_of(database)
        with database.session() as session:
            ems = find_manager(session, manager)
            check_follows = edit_manager(session, encryption_key(session), ems, changes)
        _finish(database, "changed", ems, settings if check and check_follows else None, as_json)


def _certificates(path: Path | None) -> str | None:
    """The text of the CA file; an empty name takes the certificates away."""
    if path is None:
        return None
    if str(path) in ("", "."):
        return ""
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None


def _finish(
    database: Database, verb: str, ems: ExtManagementSystem, check_with: Settings | None, as_json: bool
) -> None:
    """Check if asked to, tell, and fail when the manager cannot be used as it is."""
    checked = ems_wait.check(database, ems.id, check_with) if check_with else None
    if as_json:
        found = {"status": checked.status, "status_details": checked.details} if checked else {}
        print_json({"id": ems.id, "name": ems.name, **found})
    else:
        print(f"{verb} {ems.name} (id {ems.id})" + (f": {checked.status}" if checked else ", not checked"))
    if checked:
        ems_wait.raise_unless_valid(ems.name or "", checked)
