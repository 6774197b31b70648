"""The only callables that a message may name.

    @queue_method("EmsRefresh", "refresh", idempotent=True)
    def refresh(session, record, *args): ...

A method gets the session of its delivery, the row that `instance_id` names (None for a class call) and the message's
args. `record` gives the model of the instance. A class name with a base (`ManageIQ::Providers::Amazon::CloudManager`
for `ExtManagementSystem`) finds the base's methods (`base_name`). Idempotent methods are delivered at least once; all
others at most once.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from miq import plugins
from miq.errors import BadMessage
from miq.models import Base

Function = TypeVar("Function", bound=Callable[..., Any])

#: modules of the core that register methods
CORE_MODULES = (
    "miq.queue.diagnostics",
    "miq.queue.server_words",
    "miq.queue.schedules",
    "miq.queue.tasks",
    "miq.queue.upkeep",
    "miq.managers.credentials",
    "miq.ems_refresh",
)


@dataclass(frozen=True)
class QueueMethod:
    """One callable, and how it may be delivered."""

    class_name: str
    method_name: str
    function: Callable[..., Any]
    idempotent: bool
    model: type[Base] | None

    @property
    def command(self) -> str:
        """As log lines and `miq queue` write it."""
        return f"{self.class_name}.{self.method_name}"


_methods: dict[tuple[str, str], QueueMethod] = {}


def queue_method(
    class_name: str, method_name: str, *, idempotent: bool = False, model: type[Base] | None = None
) -> Callable[[Function], Function]:
    """Register a function as CLASS.METHOD."""

    def register(function: Function) -> Function:
        _methods[class_name, method_name] = QueueMethod(class_name, method_name, function, idempotent, model)
        return function

    return register


def base_name(class_name: str) -> str:
    """The registry's name for a class: managers of every provider answer to `ExtManagementSystem`."""
    return "ExtManagementSystem" if class_name in plugins.manager_types() else class_name


def find_method(class_name: str | None, method_name: str | None) -> QueueMethod:
    """The callable behind a message. Raises BadMessage for what nobody registered."""
    found = _methods.get((class_name or "", method_name or "")) or _methods.get(
        (base_name(class_name or ""), method_name or "")
    )
    if found is None:
        raise BadMessage(f"{class_name}.{method_name} is not a queue method of this installation")
    return found


def known_methods() -> Iterable[QueueMethod]:
    """Every registered callable."""
    return _methods.values()


def load_methods() -> None:
    """Import everything that registers: the flows and every provider's own."""
    for module in CORE_MODULES:
        importlib.import_module(module)
    for record in plugins.providers().values():
        for module in record.queue_methods:
            importlib.import_module(module)
