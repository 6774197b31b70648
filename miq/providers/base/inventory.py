"""The contract of a provider's inventory: collector, parser, persister, and the `Inventory` that ties them together.

    collector   API only: readers that yield pages, lazily. Raises a ProviderError that names the call.
    parser      pure: one object of a page in, objects of the collections out. Raises BadObject, or whatever a strange
                answer makes it raise: that costs the one object.
    persister   declares the collections, and reads from the database what the parser has to know beforehand.
    inventory   a `Manager` names it; the refresher makes one per refresh and goes through its `reads()` in order.

The refresher does the rest: staging, errors, what may vanish, the record.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from miq.connections import ConnectionSpec
from miq.db import Database
from miq.ems_refresh.inventory_collection import Collections, Definition
from miq.ems_refresh.saver import Saver

Item = Mapping[str, Any]
Page = Sequence[Item]


@dataclass(frozen=True)
class Read:
    """One kind of object: how it is read, what its parser makes of one, which collections that makes whole."""

    #: as errors and logs call it
    name: str
    pages: Callable[[], Iterator[Page]]
    parse: Callable[[Item], None]
    #: the first one holds the object itself, the others what hangs on it
    feeds: tuple[str, ...]
    #: the key of an object's identity in what the API answers
    ref: str
    #: without one page of it a refresh has nothing to say, and saves nothing when it is refused or unreachable
    main: bool = False


class Persister(ABC):
    """The collections of one refresh, and its saver."""

    def __init__(self) -> None:
        self.collections = Collections(self.definitions())

    @abstractmethod
    def definitions(self) -> Iterable[Definition]:
        """What is kept of this manager."""

    def saver(self, database: Database, ems_id: int) -> Saver:
        """The saver of these collections."""
        return Saver(database, ems_id, self.collections)


class Inventory(ABC):
    """The inventory of one manager, for one refresh."""

    def __init__(self, spec: ConnectionSpec) -> None:
        self.spec = spec

    @property
    @abstractmethod
    def persister(self) -> Persister:
        """Where the objects go."""

    @abstractmethod
    def prepare(self, saver: Saver) -> None:
        """Look up in the database what the parser has to know beforehand."""

    @abstractmethod
    def reads(self) -> Iterable[Read]:
        """What to read, in this order."""
