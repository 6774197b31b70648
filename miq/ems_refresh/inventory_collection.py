"""Collections: what is declared of one kind of object, and the objects of the page that is being read.

A `Definition` is data: the table, what identifies a row, which columns a refresh sets, which of them point to other
collections, what happens to rows that have vanished. An `InventoryCollection` is a definition in one refresh: a
parser builds objects into it, the saver takes them out page by page. Neither knows of a provider or talks to the
database.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from sqlalchemy import Table

from miq.ems_refresh.inventory_object import BadObject, Check, Lazy, check_for
from miq.models import Base

Row = tuple[Any, ...]


class Vanish(StrEnum):
    """What becomes of a row whose object was not there when its collection was read whole."""

    ARCHIVE = "archive"
    DELETE = "delete"
    KEEP = "keep"


class Reconnect(StrEnum):
    """Among whose archived rows a new object finds itself again: identities of EC2 are global, morefs are not."""

    NEVER = "never"
    MANAGER = "manager"
    GLOBAL = "global"


@dataclass(frozen=True)
class Reference:
    """A column that is filled from a row of another collection.

    `value` is SQL on the row found, with `{row}` for it; `archived` also finds rows that this manager no longer has.
    """

    column: str
    to: str
    value: str = "{row}.id"
    archived: bool = False


@dataclass(frozen=True)
class StateColumns:
    """A column whose change is remembered: its last value, and when it changed."""

    column: str
    previous: str
    changed_on: str


@dataclass(frozen=True)
class Definition:
    """One kind of object, declared."""

    name: str
    model: type[Base]
    #: plain columns that a refresh sets
    columns: tuple[str, ...]
    #: what identifies a row within its scope; references may be part of it
    manager_ref: tuple[str, ...] = ("ems_ref",)
    references: tuple[Reference, ...] = ()
    #: equal on every row of the collection, and part of its scope
    fixed: Mapping[str, Any] = field(default_factory=dict)
    #: values of columns that an object does not name
    defaults: Mapping[str, Any] = field(default_factory=dict)
    #: columns where NULL means "not said here": what another refresh found stays
    optional: frozenset[str] = frozenset()
    #: the reference in `manager_ref` that leads to the parent: rows vanish only below parents that were read
    parent: str | None = None
    vanish: Vanish = Vanish.DELETE
    #: values of an archived row
    archived: Mapping[str, Any] = field(default_factory=dict)
    reconnect: Reconnect = Reconnect.NEVER
    state: StateColumns | None = None

    @property
    def table(self) -> Table:
        """The table, for its column types."""
        table = self.model.__table__
        assert isinstance(table, Table)
        return table

    @property
    def by_manager(self) -> bool:
        """Whether rows carry `ems_id`; the others hang on their parent."""
        return "ems_id" in self.table.columns

    def reference(self, column: str | None) -> Reference | None:
        """The reference that fills the column."""
        return next((reference for reference in self.references if reference.column == column), None)


class InventoryCollection:
    """One collection in one refresh: the objects of the current page, the counts, and whether it was read whole."""

    def __init__(self, definition: Definition, leaves: Mapping[str, int]) -> None:
        """`leaves` says how many plain values identify an object of each collection."""
        self.definition = definition
        self.complete = True
        self.skipped = 0
        #: rows handed to the saver, and those among them that only say "it is there"
        self.staged = 0
        self.kept = 0
        self.page: list[Row] = []
        table = definition.table
        self._checks = {name: check_for(table.columns[name]) for name in definition.columns}
        self._widths = {reference.column: leaves[reference.to] for reference in definition.references}
        self._known = self._checks.keys() | self._widths.keys()

    @property
    def name(self) -> str:
        """The name that it is declared with."""
        return self.definition.name

    def lazy(self, *identity: Any) -> Lazy | None:  # noqa: ANN401 - a plain value or a Lazy
        """The object with this identity, whoever has built it or will; None when a part of the identity is missing."""
        leaves: list[str | None] = []
        for part in identity:
            if part is None:
                return None
            leaves.extend(part.leaves if isinstance(part, Lazy) else [str(part)])
        return Lazy(self.name, tuple(leaves))

    def build(self, **values: Any) -> Lazy:  # noqa: ANN401 - any column of the table
        """Take one object into the current page; a reference to it. Raises BadObject."""
        if not self._known >= values.keys():
            raise BadObject(f"{self.name} has no {', '.join(sorted(values.keys() - self._known))}")
        row: list[Any] = [False]
        for name, check in self._checks.items():
            row.append(self._checked(name, check, values.get(name, self.definition.defaults.get(name))))
        for column, width in self._widths.items():
            row.extend(self._leaves(column, width, values.get(column)))
        made = self.lazy(*(values.get(name) for name in self.definition.manager_ref))
        if made is None:
            raise BadObject(f"{self.name}: {' and '.join(self.definition.manager_ref)} must be given")
        self.page.append(tuple(row))
        return made

    def keep(self, ref: Any) -> None:  # noqa: ANN401 - whatever the API calls its identity
        """The object is there but could not be parsed: its row stays as it is. Raises BadObject when it has no name."""
        first = self.definition.manager_ref[0]
        if ref is None or first not in self._checks:
            raise BadObject(f"{self.name}: an object without {first}")
        known = self._checked(first, self._checks[first], ref)
        names = [*self._checks, *(None for width in self._widths.values() for _ in range(width))]
        self.page.append((True, *(known if name == first else None for name in names)))
        self.kept += 1

    def take_page(self) -> list[Row]:
        """The objects built since the last call."""
        page, self.page = self.page, []
        return page

    def _checked(self, name: str, check: Check, value: Any) -> Any:  # noqa: ANN401
        if value is None:
            return None
        try:
            return check(value)
        except (ValueError, TypeError, OverflowError) as error:
            raise BadObject(f"{self.name}.{name}: {error}") from None

    def _leaves(self, column: str, width: int, value: Any) -> Sequence[str | None]:  # noqa: ANN401
        if value is None:
            return (None,) * width
        if not isinstance(value, Lazy) or len(value.leaves) != width:
            raise BadObject(f"{self.name}.{column} is not a reference")
        if any(leaf is not None and "\0" in leaf for leaf in value.leaves):
            raise BadObject(f"{self.name}.{column}: a NUL character cannot be stored")
        return value.leaves


class Collections(Mapping[str, InventoryCollection]):
    """The collections of one refresh, by name."""

    def __init__(self, definitions: Iterable[Definition]) -> None:
        self.definitions = {definition.name: definition for definition in definitions}
        leaves = {name: len(self.leaves(name)) for name in self.definitions}
        self._collections = {
            name: InventoryCollection(definition, leaves) for name, definition in self.definitions.items()
        }

    def leaves(self, name: str) -> list[str]:
        """The plain columns that identify an object of the collection, through its references."""
        definition = self.definitions[name]
        found: list[str] = []
        for column in definition.manager_ref:
            reference = definition.reference(column)
            found.extend(self.leaves(reference.to) if reference else [f"{name}.{column}"])
        return found

    def __getitem__(self, name: str) -> InventoryCollection:
        return self._collections[name]

    def __iter__(self) -> Any:  # noqa: ANN401
        return iter(self._collections)

    def __len__(self) -> int:
        return len(self._collections)
