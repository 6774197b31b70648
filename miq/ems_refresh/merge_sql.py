"""The SQL of the saver, made from declarations. Pure: text out, nothing is run.

`stage_<collection>` holds what was read, as it was read: plain columns, and for each reference the text that
identifies its object. `found_<collection>` is the same with references resolved to rows, and each identity once. The
other statements compare `found_<collection>` (alias f) with the table (alias t). Every statement takes the parameter
`ems_id` and the collection's own `parameters`; names come from declarations, never from what was read.
"""

# ruff: noqa: S608 - names come from declared collections, values are parameters

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy.dialects import postgresql

from miq.ems_refresh.inventory_collection import Definition, Reconnect, Reference

_DIALECT = postgresql.dialect()  # type: ignore[no-untyped-call]
_TOUCHED = ("updated_on", "updated_at")


def parameters(definitions: Mapping[str, Definition]) -> dict[str, Any]:
    """The values that the statements of all collections take, but for `ems_id`."""
    return {
        _parameter(kind, definition, column): value
        for definition in definitions.values()
        for kind, values in (("fixed", definition.fixed), ("archived", definition.archived))
        for column, value in values.items()
    }


def _parameter(kind: str, definition: Definition, column: str) -> str:
    return f"{kind}_{definition.name}_{column}"


def _value(kind: str, definition: Definition, column: str) -> str:
    kind_of_column = definition.table.columns[column].type.compile(_DIALECT)
    return f"%({_parameter(kind, definition, column)})s::{kind_of_column}"


class Statements:
    """The statements of one collection. `later` are the references that its second pass writes."""

    def __init__(
        self, definition: Definition, definitions: Mapping[str, Definition], later: Sequence[Reference] = ()
    ) -> None:
        self._definition = definition
        self._definitions = definitions
        self._later = tuple(later)
        self._now = tuple(reference for reference in definition.references if reference not in self._later)
        self.stage = f"stage_{definition.name}"
        self.found = f"found_{definition.name}"
        self.table = definition.table.name

    # -- what was read -------------------------------------------------------------------------------------------------

    @property
    def staged_columns(self) -> list[str]:
        """The columns of the staging table, as rows are built, after their number."""
        return ["_keep", *self._definition.columns, *(leaf for leaf, _ in self._leaf_columns())]

    def create_stage(self) -> str:
        """The staging table, with the types of the real one."""
        types = [(name, self._definition.table.columns[name].type) for name in self._definition.columns]
        columns = [f"{name} {kind.compile(_DIALECT)}" for name, kind in [*types, *self._leaf_columns()]]
        return f"CREATE TEMP TABLE {self.stage} (_n bigint, _keep boolean, {', '.join(columns)})"

    def copy(self) -> str:
        """One page into it."""
        return f"COPY {self.stage} (_n, {', '.join(self.staged_columns)}) FROM STDIN"

    def _leaf_columns(self) -> Iterator[tuple[str, Any]]:
        for reference in self._definition.references:
            for number, kind in enumerate(self._leaf_types(reference.to)):
                yield f"{reference.column}__{number}", kind

    def _leaf_types(self, name: str) -> Iterator[Any]:
        target = self._definitions[name]
        for column in target.manager_ref:
            inner = target.reference(column)
            if inner is None:
                yield target.table.columns[column].type
            else:
                yield from self._leaf_types(inner.to)

    # -- references ----------------------------------------------------------------------------------------------------

    def create_found(self) -> str:
        """Resolve the references; of several objects with one identity the last read stays."""
        return f"CREATE TEMP TABLE {self.found} ON COMMIT DROP AS {self._resolved(self._now)}"

    def _resolved(self, references: Sequence[Reference]) -> str:
        plain = [f"s.{name}" for name in self._definition.columns]
        values = [f"{ref.value.format(row=f'j_{ref.column}')} AS {ref.column}" for ref in references]
        natural = ", ".join(self._natural())
        joins = " ".join(self._join(reference) for reference in references)
        label = f"concat_ws('/', {natural}) AS _label"
        return (
            f"SELECT DISTINCT ON ({natural}) s._n, {', '.join([label, *plain, *values])} FROM {self.stage} s {joins} "
            f"WHERE NOT s._keep ORDER BY {natural}, s._n DESC"
        )

    def _natural(self) -> list[str]:
        """The identity as it was read."""
        found: list[str] = []
        for column in self._definition.manager_ref:
            reference = self._definition.reference(column)
            if reference is None:
                found.append(f"s.{column}")
            else:
                found.extend(f"s.{column}__{n}" for n, _ in enumerate(self._leaf_types(reference.to)))
        return found

    def _join(self, reference: Reference) -> str:
        leaves = iter([f"s.{reference.column}__{n}" for n, _ in enumerate(self._leaf_types(reference.to))])
        return self._join_target(reference, f"j_{reference.column}", leaves, reference.archived)

    def _join_target(self, reference: Reference, alias: str, leaves: Iterator[str], archived: bool) -> str:
        target = self._definitions[reference.to]
        joins, identity = [], []
        for number, column in enumerate(target.manager_ref):
            inner = target.reference(column)
            if inner is None:
                identity.append((column, next(leaves)))
            else:
                joins.append(self._join_target(inner, f"{alias}_{number}", leaves, archived or inner.archived))
                identity.append((column, inner.value.format(row=f"{alias}_{number}")))
        join = _join_archived if archived and target.by_manager else _join_live
        return " ".join([*joins, join(target, alias, identity)])

    def drop_unresolved(self) -> str | None:
        """Objects whose identity points to nothing; answers how they are called. None when that cannot be."""
        unknown = [f"{name} IS NULL" for name in self._definition.manager_ref if self._definition.reference(name)]
        return f"DELETE FROM {self.found} WHERE {' OR '.join(unknown)} RETURNING _label" if unknown else None

    # -- the merge -----------------------------------------------------------------------------------------------------

    def _match(self, row: str = "t", found: str = "f") -> str:
        same = [f"{row}.{name} = {found}.{name}" for name in self._definition.manager_ref]
        return " AND ".join([*_scope(self._definition, row), *same])

    @property
    def _written(self) -> list[str]:
        return [*self._definition.columns, *(reference.column for reference in self._now)]

    def _new_value(self, name: str) -> str:
        return f"coalesce(f.{name}, t.{name})" if name in self._definition.optional else f"f.{name}"

    def _set(self, names: Sequence[str]) -> str:
        changes = [f"{name} = {self._new_value(name)}" for name in names]
        state = self._definition.state
        if state is not None:
            changes += self._state_changes(f"f.{state.column}")
        return ", ".join([*changes, *self._touch()])

    def _state_changes(self, value: str) -> list[str]:
        state = self._definition.state
        assert state is not None
        when = f"CASE WHEN t.{state.column} IS DISTINCT FROM {value} THEN"
        return [
            f"{state.previous} = {when} t.{state.column} ELSE t.{state.previous} END",
            f"{state.changed_on} = {when} utc_now() ELSE t.{state.changed_on} END",
        ]

    def _touch(self) -> list[str]:
        return [f"{name} = utc_now()" for name in _TOUCHED if name in self._definition.table.columns]

    def update(self) -> str | None:
        """Rows that have changed, and only those. None when an object is nothing but its identity."""
        names = [name for name in self._written if name not in self._definition.manager_ref]
        if not names:
            return None
        old = ", ".join(f"t.{name}" for name in names)
        new = ", ".join(self._new_value(name) for name in names)
        return (
            f"UPDATE {self.table} t SET {self._set(names)} FROM {self.found} f "
            f"WHERE {self._match()} AND ROW({old}) IS DISTINCT FROM ROW({new})"
        )

    def reconnect(self) -> str | None:
        """Take archived rows back, the oldest of each identity. None when they never come back."""
        definition = self._definition
        if definition.reconnect is Reconnect.NEVER:
            return None
        names = ", ".join(f"f.{name}" for name in ["_n", *self._written])
        refs = ", ".join(f"t.{name}" for name in definition.manager_ref)
        same = [f"t.{name} = f.{name}" for name in definition.manager_ref]
        same += ["t.type = f.type"] if "type" in definition.columns else []
        former = ["t.former_ems_id = %(ems_id)s"] if definition.reconnect is Reconnect.MANAGER else []
        gone = " AND ".join(["t.ems_id IS NULL", *same, *_fixed(definition, "t"), *former])
        return (
            f"WITH f AS (SELECT DISTINCT ON ({refs}) t.id, {names} FROM {self.found} f "
            f"JOIN {self.table} t ON {gone} WHERE {self._absent('l')} ORDER BY {refs}, t.id) "
            f"UPDATE {self.table} t SET ems_id = %(ems_id)s, former_ems_id = NULL, archived_on = NULL, "
            f"{self._set(self._written)} FROM f WHERE t.id = f.id AND t.ems_id IS NULL"
        )

    def _absent(self, alias: str) -> str:
        return f"NOT EXISTS (SELECT FROM {self.table} {alias} WHERE {self._match(alias)})"

    def insert(self) -> str:
        """New rows. Only they draw numbers from the sequence."""
        definition = self._definition
        values = {name: _value("fixed", definition, name) for name in definition.fixed}
        values |= {name: f"f.{name}" for name in self._written}
        values |= {name: "utc_now()" for name in _TOUCHED if name in definition.table.columns}
        if definition.by_manager:
            values["ems_id"] = "%(ems_id)s"
        if definition.state is not None:
            values[definition.state.changed_on] = "utc_now()"
        return (
            f"INSERT INTO {self.table} ({', '.join(values)}) SELECT {', '.join(values.values())} "
            f"FROM {self.found} f WHERE {self._absent('t')} ORDER BY f._n"
        )

    # -- what has vanished ---------------------------------------------------------------------------------------------

    def delete(self) -> str:
        """Remove the rows of vanished objects."""
        return f"DELETE FROM {self.table} t WHERE {self._vanished()}"

    def archive(self) -> str:
        """Take the rows of vanished objects away from their manager, and remember whose they were."""
        definition = self._definition
        changes = ["former_ems_id = t.ems_id", "ems_id = NULL", "archived_on = utc_now()"]
        changes += [f"{name} = {_value('archived', definition, name)}" for name in definition.archived]
        if definition.state is not None and definition.state.column in definition.archived:
            changes += self._state_changes(_value("archived", definition, definition.state.column))
        return f"UPDATE {self.table} t SET {', '.join([*changes, *self._touch()])} WHERE {self._vanished()}"

    def _vanished(self) -> str:
        definition = self._definition
        same = " AND ".join(f"f.{name} = t.{name}" for name in definition.manager_ref)
        gone = [f"NOT EXISTS (SELECT FROM {self.found} f WHERE {same})"]
        parent = definition.reference(definition.parent)
        if parent is not None:
            above = Statements(self._definitions[parent.to], self._definitions)
            read = f"SELECT p.id FROM {above.table} p JOIN {above.found} f ON {above._match('p')}"
            gone.append(f"t.{parent.column} IN ({read})")
        elif definition.reference(first := definition.manager_ref[0]) is None:
            gone.append(f"NOT EXISTS (SELECT FROM {self.stage} s WHERE s._keep AND s.{first} = t.{first})")
        return " AND ".join([*_scope(definition, "t"), *gone])

    # -- the second pass -----------------------------------------------------------------------------------------------

    def link(self) -> str:
        """Write the references that could not be resolved before all rows were there."""
        identity = [reference for reference in self._now if reference.column in self._definition.manager_ref]
        names = [reference.column for reference in self._later]
        old, new = (", ".join(f"{alias}.{name}" for name in names) for alias in "tf")
        changes = ", ".join([*(f"{name} = f.{name}" for name in names), *self._touch()])
        return (
            f"WITH f AS ({self._resolved([*identity, *self._later])}) UPDATE {self.table} t SET {changes} FROM f "
            f"WHERE {self._match()} AND ROW({old}) IS DISTINCT FROM ROW({new})"
        )


def _fixed(definition: Definition, alias: str) -> list[str]:
    return [f"{alias}.{name} = {_value('fixed', definition, name)}" for name in definition.fixed]


def _scope(definition: Definition, alias: str) -> list[str]:
    """Which rows of the table are this collection's; those without `ems_id` are so by their identity."""
    return [*([f"{alias}.ems_id = %(ems_id)s"] if definition.by_manager else []), *_fixed(definition, alias)]


def _join_live(target: Definition, alias: str, identity: Sequence[tuple[str, str]]) -> str:
    same = [f"{alias}.{column} = {value}" for column, value in identity]
    return f"LEFT JOIN {target.table.name} {alias} ON {' AND '.join([*_scope(target, alias), *same])}"


def _join_archived(target: Definition, alias: str, identity: Sequence[tuple[str, str]]) -> str:
    """The live row, else the oldest archived one of this manager: each half by its own index."""
    same = [f"t.{column} = {value}" for column, value in identity]
    live = " AND ".join([*_scope(target, "t"), *same])
    gone = " AND ".join(["t.ems_id IS NULL", "t.former_ems_id = %(ems_id)s", *_fixed(target, "t"), *same])
    table = target.table.name
    return (
        f"LEFT JOIN LATERAL ((SELECT t.* FROM {table} t WHERE {live}) UNION ALL "
        f"(SELECT t.* FROM {table} t WHERE {gone} ORDER BY t.id) LIMIT 1) {alias} ON true"
    )


def known(definition: Definition, columns: Sequence[str]) -> str:
    """What the database holds of a collection."""
    return f"SELECT {', '.join(columns)} FROM {definition.table.name} t WHERE {' AND '.join(_scope(definition, 't'))}"
