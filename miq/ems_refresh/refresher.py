"""One refresh of one manager: collect, parse, save, record.

In: a manager's row. Out: its inventory in the tables and a row in `ems_refreshes`. Generic: what is read and how it
is mapped comes from the `Inventory` that the manager's class names (`providers.base.inventory`), loaded by name. A
reader that fails costs the wholeness of what it feeds; an object that cannot be parsed costs itself. This is the
border that catches whatever a parser raises, and counts it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import psycopg
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from miq import paths, plugins, settings_loader
from miq.connections import ManagerRow, connection_spec
from miq.db import Database, database_of
from miq.ems_refresh import refresh_record
from miq.ems_refresh.inventory_collection import Collections
from miq.ems_refresh.inventory_object import BadObject
from miq.ems_refresh.saver import Counts, Saver
from miq.errors import (
    IncompleteCredentials,
    InvalidCredentials,
    MessageTimeout,
    MiqError,
    ProviderError,
    ProviderUnreachable,
    RefreshFailed,
    StopRequested,
)
from miq.models import RefreshState

log = logging.getLogger(__name__)

#: credentials or endpoint: nothing else can be read either
_HOPELESS = (InvalidCredentials, IncompleteCredentials, ProviderUnreachable)


class Read(Protocol):
    """What the refresher knows of `providers.base.inventory.Read`."""

    @property
    def name(self) -> str: ...
    @property
    def pages(self) -> Callable[[], Iterator[Sequence[Mapping[str, Any]]]]: ...
    @property
    def parse(self) -> Callable[[Mapping[str, Any]], None]: ...
    @property
    def feeds(self) -> tuple[str, ...]: ...
    @property
    def ref(self) -> str: ...
    @property
    def main(self) -> bool: ...


class Persister(Protocol):
    """What the refresher knows of `providers.base.inventory.Persister`."""

    @property
    def collections(self) -> Collections: ...
    def saver(self, database: Database, ems_id: int) -> Saver: ...


class Inventory(Protocol):
    """What the refresher knows of `providers.base.inventory.Inventory`."""

    @property
    def persister(self) -> Persister: ...
    def prepare(self, saver: Saver) -> None: ...
    def reads(self) -> Iterable[Read]: ...


@dataclass(frozen=True)
class Result:
    """How a refresh ended."""

    state: RefreshState
    error: str | None
    counts: Mapping[str, Counts]


def refresh_manager(session: Session, ems: ManagerRow, *, cause: str | None = None) -> Result:
    """Refresh one manager and record how it went.

    Raises RefreshFailed when nothing could be saved, and passes on StopRequested, MessageTimeout and a lost database.
    """
    message = session.info.get("message")
    record = refresh_record.begin(session, ems.id, cause, getattr(message, "miq_task_id", None))
    where = f"EMS: [{ems.name}], id: [{ems.id}]"
    log.info("MIQ(Refresher#refresh) %s Refreshing all targets...", where)
    try:
        result = _collect_and_save(session, ems)
    except StopRequested:
        session.rollback()
        refresh_record.stopped(session, record)
        raise
    except Exception as error:  # one manager's failure, whatever it is, is recorded, and is not the other managers'
        text = str(error).strip() or type(error).__name__
        known = isinstance(error, MiqError)
        log.error("MIQ(Refresher#refresh) %s Refresh failed: %s", where, text, exc_info=not known)
        if not _recorded(session, record, text) or isinstance(error, MessageTimeout):
            raise
        raise RefreshFailed(f"{ems.name}: {text}") from None
    refresh_record.finish(session, record, result.state, result.error, result.counts)
    log.info("MIQ(Refresher#refresh) %s Refreshing all targets...Complete, state: [%s]", where, result.state)
    return result


def _recorded(session: Session, record: refresh_record.Record, text: str) -> bool:
    """Record the failure; False when the database is lost: then the next refresh closes the record."""
    try:
        session.rollback()
        refresh_record.finish(session, record, RefreshState.ERROR, text.replace("\0", ""), {})
    except (psycopg.Error, SQLAlchemyError) as error:
        log.error("MIQ(Refresher#refresh) EMS id: [%s] The failure cannot be recorded: %s", record.ems_id, error)
        return False
    return True


def _collect_and_save(session: Session, ems: ManagerRow) -> Result:
    manager = plugins.manager_type(ems.type)
    if manager is None or manager.inventory is None:
        raise RefreshFailed(f"no installed provider keeps the inventory of a {ems.type}")
    settings = session.info.get("settings") or settings_loader.local(paths.home())
    inventory: Inventory = plugins.load(manager.inventory)(connection_spec(session, ems, settings))
    session.commit()  # no transaction is open while an API is read
    with inventory.persister.saver(database_of(session), ems.id) as saver:
        inventory.prepare(saver)
        collector = _Collecting(ems.id, inventory, saver, session.info.get("check_stop", lambda: None))
        collector.read_all()
        counts = saver.save()
    problems = collector.problems(counts)
    return Result(RefreshState.PARTIAL if problems else RefreshState.OK, "; ".join(problems) or None, counts)


@dataclass
class _Collecting:
    """Goes through an inventory's reads, page by page."""

    ems_id: int
    inventory: Inventory
    saver: Saver
    check_stop: Callable[[], None]
    errors: list[str] = field(default_factory=list)

    def read_all(self) -> None:
        """Stage everything that can be read. Raises ProviderError when the main read is refused or unreachable."""
        for read in self.inventory.reads():
            heard = False
            try:
                for page in read.pages():
                    self._take(read, page)
                    heard = True
            except ProviderError as error:
                if read.main and not heard and isinstance(error, _HOPELESS):
                    raise
                self._incomplete(read, error)

    def _take(self, read: Read, page: Sequence[Mapping[str, Any]]) -> None:
        self.check_stop()
        for item in page:
            self._parse(read, item)
        self.saver.stage()

    def _parse(self, read: Read, item: Mapping[str, Any]) -> None:
        fed = [self.inventory.persister.collections[name] for name in read.feeds]
        marks = [len(collection.page) for collection in fed]
        try:
            read.parse(item)
        except Exception as error:  # one bad object, whatever is bad about it, is not the end of a refresh
            if isinstance(error, StopRequested | MessageTimeout):
                raise
            for collection, mark in zip(fed, marks, strict=True):
                del collection.page[mark:]
            self._skip(read, item, error)

    def _skip(self, read: Read, item: Mapping[str, Any], error: Exception) -> None:
        collection = self.inventory.persister.collections[read.feeds[0]]
        collection.skipped += 1
        ref = item.get(read.ref)
        log.warning(
            "MIQ(Refresher#parse) EMS id: [%s], %s: %s skipped: %s: %s",
            self.ems_id, collection.name, ref, type(error).__name__, error,
        )  # fmt: skip
        try:
            collection.keep(ref)
        except BadObject:  # nobody knows which row is its: none may vanish
            self._mark(read)

    def _incomplete(self, read: Read, error: ProviderError) -> None:
        self.errors.append(str(error))
        log.error("MIQ(Refresher#collect) EMS id: [%s], %s: %s", self.ems_id, read.name, error)
        self._mark(read)

    def _mark(self, read: Read) -> None:
        for name in read.feeds:
            self.inventory.persister.collections[name].complete = False

    def problems(self, counts: Mapping[str, Counts]) -> list[str]:
        """Why the refresh is partial, if it is."""
        skipped = [f"{count.skipped} of {name} skipped" for name, count in counts.items() if count.skipped]
        return [*self.errors, *skipped]
