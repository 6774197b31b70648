"""Adding, finding, editing, checking and removing managers, on a real database with a provider made up here."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any, ClassVar

import psycopg
import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from miq import plugins
from miq.cli.connect import encryption_key
from miq.connections import connection_spec
from miq.db import Database
from miq.errors import (
    IncompleteCredentials,
    InvalidCredentials,
    ProviderError,
    ProviderUnreachable,
    SecretError,
    UnknownManager,
    UnknownProvider,
    UsageError,
)
from miq.managers.add import AddManager, add_manager
from miq.managers.credentials import authentication_check_types, check_now, queue_check
from miq.managers.edit import EditManager, edit_manager
from miq.managers.find import find_manager, find_manager_type, find_zone
from miq.managers.overview import overviews
from miq.managers.remove import ARCHIVED, DELETED, remove_manager
from miq.managers.rows import find_authentication, find_endpoint
from miq.models import (
    Authentication,
    AvailabilityZone,
    Base,
    Endpoint,
    ExtManagementSystem,
    Flavor,
    Hardware,
    MiqQueue,
    MiqTask,
    Vm,
)
from miq.models.worker_types import worker_types
from miq.paths import Home
from miq.providers.base.manager import ConnectionSpec, Manager
from miq.queue.message import Message
from miq.queue.put import put
from miq.queue.tasks import create_task
from miq.secrets import Key
from miq.settings import Settings

SETTINGS = Settings({})
FOUND: dict[str, Any] = {}


class CloudManager(Manager):
    """A manager whose check says what a test wants."""

    type = "ManageIQ::Providers::Fake::CloudManager"
    ems_type = "fake"
    description = "Fake cloud"
    vendor = "fake"
    needs_region = True
    check = f"{__name__}:check"
    credential_labels: ClassVar[Mapping[str, str]] = {"userid": "User", "password": "Password"}

    @classmethod
    def regions(cls) -> Mapping[str, str]:
        return {"north": "The north"}


def check(spec: ConnectionSpec) -> None:
    FOUND["spec"] = spec
    if callable(FOUND.get("during")):
        FOUND["during"]()
    if isinstance(FOUND.get("error"), Exception):
        raise FOUND["error"]


@pytest.fixture(autouse=True)
def provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    FOUND.clear()
    record = SimpleNamespace(name="fake", managers=(CloudManager,), worker_types=(), settings={}, queue_methods=())
    monkeypatch.setattr(plugins, "_load", lambda: ({"fake": record}, {"sick": "ImportError: no module"}))
    yield
    worker_types.cache_clear()  # what was found of the fake is not for the next test


@pytest.fixture
def session(database: Database, home: Home) -> Iterator[Session]:
    with database.session() as session:
        yield session


@pytest.fixture
def key(session: Session) -> Key:
    return encryption_key(session)


def wanted(**changes: Any) -> AddManager:
    values: dict[str, Any] = {"type": "fake", "name": "prod", "region": "north", "userid": "me", "password": "s3cret"}
    return AddManager(**values | changes)


# -- add ---------------------------------------------------------------------------------------------------------------


def test_add_writes_the_manager_and_what_belongs_to_it(session: Session, key: Key) -> None:
    proxy = "http://someone:p%40ss@proxy.example:3128"
    ems = add_manager(
        session, key, wanted(endpoint_url="https://api.example:8443/x", http_proxy=proxy, verify_ssl=False)
    )
    assert (ems.type, ems.name, ems.provider_region) == (CloudManager.type, "prod", "north")
    assert ems.zone_id == find_zone(session, None).id
    endpoint, through = find_endpoint(session, ems.id), find_endpoint(session, ems.id, "http_proxy")
    assert endpoint is not None and through is not None
    assert (endpoint.url, endpoint.hostname, endpoint.port) == ("https://api.example:8443/x", "api.example", 8443)
    assert endpoint.verify_ssl == 0
    assert through.url == "http://proxy.example:3128"


def test_secrets_are_encrypted_and_come_back_only_in_the_connection(session: Session, key: Key) -> None:
    request = wanted(http_proxy="http://someone:p%40ss@proxy.example:3128")
    assert "s3cret" not in repr(request) and "p%40ss" not in repr(request)
    ems = add_manager(session, key, request)
    stored = " ".join(
        str(value)
        for model in (Authentication, Endpoint)
        for row in session.scalars(select(model))
        for value in vars(row).values()
    )
    assert "s3cret" not in stored and "p@ss" not in stored and "p%40ss" not in stored
    spec = connection_spec(session, ems, SETTINGS, key=key)
    assert (spec.credentials.userid, spec.credentials.password) == ("me", "s3cret")
    assert spec.http_proxy == "http://someone:p%40ss@proxy.example:3128"
    assert "s3cret" not in repr(spec)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"type": "nothing"}, "no manager type 'nothing'"),
        ({"type": "sick"}, "does not load: ImportError"),
        ({"name": "  "}, "needs a name"),
        ({"region": None}, "needs a region"),
        ({"region": "south"}, "no region 'south'"),
        ({"zone": "elsewhere"}, "no zone 'elsewhere'"),
        ({"endpoint_url": "api.example"}, "endpoint URL is not an http"),
        ({"endpoint_url": "ftp://api.example"}, "endpoint URL is not an http"),
        ({"endpoint_url": "https://me:s3cret@api.example"}, "holds a user"),
        ({"endpoint_url": "https://api.example:99999"}, "not a URL"),
        ({"http_proxy": "proxy s3cret"}, "HTTP proxy is not an http"),
        ({"certificate_authority": "no pem"}, "no certificate in PEM"),
    ],
)
def test_what_cannot_be_used_is_named_and_nothing_is_written(
    session: Session, key: Key, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError, match=said) as raised:
        add_manager(session, key, wanted(**changes))
    assert "s3cret" not in str(raised.value)
    assert session.scalars(select(ExtManagementSystem)).all() == []
    assert session.scalars(select(Authentication)).all() == []


def test_a_name_is_used_once(session: Session, key: Key) -> None:
    add_manager(session, key, wanted())
    with pytest.raises(UsageError, match="a manager named 'prod' already"):
        add_manager(session, key, wanted())


def test_a_provider_name_stands_for_its_first_manager() -> None:
    assert find_manager_type("fake") is CloudManager
    assert find_manager_type("Fake::CloudManager") is CloudManager
    with pytest.raises(UnknownProvider):
        find_manager_type("real")


def test_managers_are_found_by_name_before_id(session: Session, key: Key) -> None:
    first = add_manager(session, key, wanted())
    second = add_manager(session, key, wanted(name=str(first.id)))
    assert find_manager(session, "prod") is first
    assert find_manager(session, str(first.id)) is second
    assert find_manager(session, second.id) is second
    for nobody in ("other", "99", str(10**30), "²"):
        with pytest.raises(UnknownManager):
            find_manager(session, nobody)


# -- edit --------------------------------------------------------------------------------------------------------------


def credentials(session: Session, ems: ExtManagementSystem) -> Authentication:
    found = find_authentication(session, ems.id)
    assert found is not None
    session.refresh(found)
    return found


def test_a_changed_secret_forgets_the_last_check(session: Session, key: Key) -> None:
    ems = add_manager(session, key, wanted())
    check_now(session, ems, SETTINGS)
    before = credentials(session, ems).credentials_changed_on
    assert credentials(session, ems).status == "Valid"
    assert edit_manager(session, key, ems, EditManager(password="new"))
    changed = credentials(session, ems)
    assert changed.status is None
    assert changed.credentials_changed_on != before
    assert connection_spec(session, ems, SETTINGS, key=key).credentials.password == "new"


def test_a_changed_address_asks_for_a_check_a_changed_name_does_not(session: Session, key: Key) -> None:
    ems = add_manager(session, key, wanted(http_proxy="http://u:p@proxy:1"))
    check_now(session, ems, SETTINGS)
    assert not edit_manager(session, key, ems, EditManager(name="other"))
    assert (ems.name, credentials(session, ems).status) == ("other", "Valid")
    assert edit_manager(session, key, ems, EditManager(endpoint_url="http://api:1", http_proxy=""))
    assert credentials(session, ems).status is None
    assert find_endpoint(session, ems.id, "http_proxy") is None
    assert find_authentication(session, ems.id, "http_proxy") is None
    assert connection_spec(session, ems, SETTINGS, key=key).endpoint_url == "http://api:1"


def test_an_edit_that_cannot_be_made_changes_nothing(session: Session, key: Key) -> None:
    add_manager(session, key, wanted(name="taken"))
    ems = add_manager(session, key, wanted())
    session.commit()
    for changes in (EditManager(name="taken"), EditManager(region="south"), EditManager(endpoint_url="x")):
        with pytest.raises(UsageError):
            edit_manager(session, key, ems, changes)
        session.rollback()
    assert (ems.name, ems.provider_region) == ("prod", "north")


def test_a_paused_manager_keeps_its_zone(session: Session, key: Key) -> None:
    ems = add_manager(session, key, wanted())
    session.add(type(find_zone(session, None))(name="east"))
    ems.enabled = False
    session.flush()
    with pytest.raises(UsageError, match="paused"):
        edit_manager(session, key, ems, EditManager(zone="east"))


# -- check -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (None, "Valid"),
        (InvalidCredentials("bad key"), "Invalid"),
        (IncompleteCredentials("no key"), "Incomplete"),
        (ProviderUnreachable("no route\n to host"), "Unreachable"),
        (ProviderError("odd"), "Error"),
        (RuntimeError("a bug"), "Error"),
    ],
)
def test_a_check_writes_what_it_found(session: Session, key: Key, error: Exception | None, status: str) -> None:
    ems = add_manager(session, key, wanted())
    FOUND["error"] = error
    session.info["settings"] = SETTINGS
    assert authentication_check_types(session, ems) == status
    row = credentials(session, ems)
    assert row.status == status
    assert "\n" not in (row.status_details or "")
    assert (row.last_valid_on is None, row.last_invalid_on is None) == (status != "Valid", status == "Valid")


def test_no_transaction_is_open_during_the_call(session: Session, key: Key) -> None:
    ems = add_manager(session, key, wanted())
    FOUND["during"] = lambda: FOUND.update(open=session.in_transaction())
    check_now(session, ems, SETTINGS)
    assert FOUND["open"] is False


def test_a_status_of_rows_that_changed_meanwhile_is_not_written(session: Session, key: Key, dsn: str) -> None:
    ems = add_manager(session, key, wanted())

    def change() -> None:
        with psycopg.connect(dsn) as other:
            other.execute("UPDATE authentications SET userid = 'other', updated_on = utc_now(), status = NULL")

    FOUND["during"] = change
    assert check_now(session, ems, SETTINGS).valid
    assert credentials(session, ems).status is None


def test_a_manager_of_an_unknown_type_gets_a_status(session: Session, key: Key) -> None:
    ems = add_manager(session, key, wanted())
    ems.type = "ManageIQ::Providers::Gone::CloudManager"
    found = check_now(session, ems, SETTINGS)
    assert (found.status, "no installed provider" in found.details) == ("Error", True)


def test_our_own_missing_key_is_not_the_managers_fault(session: Session, key: Key, home: Home) -> None:
    ems = add_manager(session, key, wanted())
    check_now(session, ems, SETTINGS)
    home.key_file.unlink()
    with pytest.raises(SecretError):
        check_now(session, ems, SETTINGS)
    session.rollback()
    assert credentials(session, ems).status == "Valid"
    with pytest.raises(SecretError):
        encryption_key(session)


def test_a_queued_check_goes_to_the_operations_role_of_the_zone(session: Session, key: Key) -> None:
    ems = add_manager(session, key, wanted())
    task_id = queue_check(session, ems)
    row = session.scalars(select(MiqQueue)).one()
    assert (row.queue_name, row.role, row.zone, row.instance_id) == ("generic", "ems_operations", "default", ems.id)
    assert row.miq_task_id == task_id
    assert queue_check(session, ems, with_task=False) is None
    assert queue_check(session, ems, with_task=False) is None
    assert len(session.scalars(select(MiqQueue)).all()) == 2


# -- remove ------------------------------------------------------------------------------------------------------------


def test_remove_archives_machines_and_deletes_the_rest(session: Session, key: Key) -> None:
    ems, other = add_manager(session, key, wanted()), add_manager(session, key, wanted(name="other"))
    zone, flavor = AvailabilityZone(ems_id=ems.id, ems_ref="a"), Flavor(ems_id=ems.id, ems_ref="small")
    kept = Flavor(ems_id=other.id, ems_ref="small")
    session.add_all([zone, flavor, kept])
    session.flush()
    vm = Vm(ems_id=ems.id, ems_ref="i-1", flavor_id=flavor.id, availability_zone_id=zone.id)
    session.add(vm)
    session.flush()
    session.add(Hardware(vm_or_template_id=vm.id))
    task_id = create_task(session, "refresh")
    put(session, Message("EmsRefresh", "refresh", queue_name=f"ems_{ems.id}", miq_task_id=task_id))
    put(session, Message("EmsRefresh", "refresh", queue_name=f"ems_{other.id}"))
    ems_id = ems.id
    done = remove_manager(session, ems)
    assert (done["vms"], done["flavors"], done["availability_zones"], done["miq_queue"]) == (1, 1, 1, 1)
    session.expire_all()
    assert (vm.ems_id, vm.former_ems_id, vm.flavor_id, vm.availability_zone_id) == (None, ems_id, None, None)
    assert vm.archived_on is not None
    assert session.scalars(select(Hardware)).one().vm_or_template_id == vm.id
    assert session.scalars(select(ExtManagementSystem)).all() == [other]
    assert session.scalars(select(Flavor)).all() == [kept]
    assert {row.resource_id for row in session.scalars(select(Endpoint))} == {other.id}
    assert {row.resource_id for row in session.scalars(select(Authentication))} == {other.id}
    task = session.get_one(MiqTask, task_id)
    assert (task.state, task.status, task.message) == ("Finished", "Error", "prod was removed")


def test_remove_pauses_then_waits_for_the_saver(session: Session, key: Key, dsn: str) -> None:
    ems = add_manager(session, key, wanted())
    session.commit()
    with psycopg.connect(dsn) as saver, psycopg.connect(dsn, autocommit=True) as looking:
        saver.execute("SELECT pg_advisory_xact_lock(hashtextextended('ems_' || %s, 0))", (str(ems.id),))
        removal = threading.Thread(target=remove_manager, args=(session, ems))
        removal.start()
        removal.join(0.3)
        assert removal.is_alive()
        row = looking.execute("SELECT enabled FROM ext_management_systems").fetchone()
        assert row == (False,)
        saver.commit()
        removal.join(10)
        assert looking.execute("SELECT count(*) FROM ext_management_systems").fetchone() == (0,)


def test_every_table_of_a_manager_is_archived_or_deleted() -> None:
    owned = {table.name for table in Base.metadata.tables.values() if "ems_id" in table.columns}
    assert owned == {model.__tablename__ for model in (*ARCHIVED, *DELETED)}


# -- overview ----------------------------------------------------------------------------------------------------------


def test_the_overview_counts_and_shows_no_secret(session: Session, key: Key) -> None:
    ems = add_manager(session, key, wanted(http_proxy="http://u:hidden@proxy:1"))
    session.add_all([Vm(ems_id=ems.id, ems_ref=str(n), template=n == 3) for n in range(4)])
    session.flush()
    (found,) = overviews(session)
    assert (found.name, found.zone, found.vms, found.templates) == ("prod", "default", 3, 1)
    assert (found.status, found.last_refresh, found.refresh) == (None, "never", None)
    assert "s3cret" not in repr(found) and "hidden" not in repr(found)
    assert overviews(session, []) == []
