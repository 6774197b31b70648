"""The order in which collections are saved: whatever a row points to comes before it. Pure.

Edges are references. One that leads back to its own collection, or closes a cycle, cannot be resolved before its row is
there: `order` names such references, and the saver writes them in a second pass. Only a cycle among identities has no
way out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter

from miq.ems_refresh.inventory_collection import Definition, Reference


class IdentityCycle(ValueError):
    """Collections that identify their rows by each other: a mistake in their declaration."""


@dataclass(frozen=True)
class Order:
    """Collections in the order of saving, and the references that need a second pass, by collection."""

    names: tuple[str, ...]
    second_pass: Mapping[str, tuple[Reference, ...]]


def order(definitions: Mapping[str, Definition]) -> Order:
    """Sort the collections. Raises IdentityCycle, and KeyError for a reference to nothing."""
    edges: dict[str, set[str]] = {name: set() for name in definitions}
    optional: list[tuple[str, Reference]] = []
    for name, definition in definitions.items():
        for reference in definition.references:
            if reference.column in definition.manager_ref:
                edges[name].add(definitions[reference.to].name)
            else:
                optional.append((name, reference))
    if (cycle := _cycle(edges)) is not None:
        raise IdentityCycle(f"collections identify their rows by each other: {' -> '.join(cycle)}")
    later: dict[str, tuple[Reference, ...]] = {}
    for name, reference in optional:
        tried = {**edges, name: edges[name] | {definitions[reference.to].name}}
        if reference.to == name or _cycle(tried) is not None:
            later[name] = (*later.get(name, ()), reference)
        else:
            edges = tried
    return Order(tuple(TopologicalSorter(edges).static_order()), later)


def _cycle(edges: Mapping[str, set[str]]) -> list[str] | None:
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as error:
        found: list[str] = error.args[1]
        return found
    return None
