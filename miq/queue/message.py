"""What a message is before it is a row: whom to call with what, and who may take it.

Pure: `row()` gives the columns, with the zone and the `task_id` that a put inherits from where it happens, and `key()`
what makes two messages the same. Payloads are JSON, never code.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from enum import Enum
from typing import Any, NamedTuple

from miq.errors import BadMessage
from miq.models import Priority
from miq.models.server_role import REGION_ROLES

#: the columns of `Message.row()`, in its order
COLUMNS = (
    "class_name", "method_name", "args", "instance_id", "target_id", "queue_name", "zone", "role", "server_guid",
    "priority", "deliver_on", "expires_on", "msg_timeout", "task_id", "miq_task_id", "tracking_label", "miq_callback",
    "msg_data", "user_id", "group_id", "tenant_id",
)  # fmt: skip

DEFAULT_TIMEOUT = 600


class Inherit(Enum):
    """A value that the place of the put decides."""

    #: the zone of the process, or any zone for a role that belongs to no zone (reference 5.1)
    ZONE = "my zone"
    #: the `task_id` of the message that is being executed (reference 5.2)
    TASK = "the task_id of the running message"


class Origin(NamedTuple):
    """Where a put happens: the zone of the process, and what the message that it executes hands on."""

    zone: str | None = None
    task_id: str | None = None
    tracking_label: str | None = None


@dataclass(frozen=True)
class Callback:
    """Who is told how a message ended: called with `args` + [status, message, result]."""

    class_name: str
    method_name: str
    instance_id: int | None = None
    args: Sequence[Any] = ()

    def as_json(self) -> str:
        """As the row holds it. Raises BadMessage when args are not JSON."""
        return encode(asdict(self), "the callback's args")


@dataclass(frozen=True)
class Message:
    """A message to put (reference 5.2).

    `zone`, `role` and `server_guid` None mean any; `msg_timeout` is in seconds; `priority` is 0 to 200, low is soon;
    `data` comes last in the call, after `args`, when it is not None.
    """

    class_name: str
    method_name: str
    args: Sequence[Any] = ()
    instance_id: int | None = None
    target_id: int | None = None
    data: Any = None
    queue_name: str = "generic"
    zone: str | Inherit | None = Inherit.ZONE
    role: str | None = None
    server_guid: str | None = None
    priority: int = Priority.NORMAL
    deliver_on: datetime | None = None
    expires_on: datetime | None = None
    msg_timeout: int = DEFAULT_TIMEOUT
    task_id: str | Inherit | None = Inherit.TASK
    miq_task_id: int | None = None
    tracking_label: str | None = None
    callback: Callback | None = None
    user_id: int | None = None
    group_id: int | None = None
    tenant_id: int | None = None

    @property
    def command(self) -> str:
        """CLASS.METHOD, for people."""
        return f"{self.class_name}.{self.method_name}"

    def zone_from(self, origin: Origin) -> str | None:
        """The zone whose workers may take it; None for any."""
        if isinstance(self.zone, Inherit):
            return None if self.role in REGION_ROLES else origin.zone
        return self.zone

    def row(self, origin: Origin) -> tuple[Any, ...]:
        """The values of `COLUMNS`. Raises BadMessage for what no worker could take or read."""
        if not 0 <= self.priority <= Priority.MIN:
            raise BadMessage(f"priority {self.priority} of {self.command}: write a number from 0 (soon) to 200")
        if self.msg_timeout <= 0:
            raise BadMessage(f"msg_timeout {self.msg_timeout} of {self.command}: write seconds, more than 0")
        task_id = origin.task_id if isinstance(self.task_id, Inherit) else self.task_id
        label = self.tracking_label or origin.tracking_label or task_id
        return (
            self.class_name, self.method_name, self._args(), self.instance_id, self.target_id, self.queue_name,
            self.zone_from(origin), self.role, self.server_guid, int(self.priority), self.deliver_on, self.expires_on,
            self.msg_timeout, task_id, self.miq_task_id, label, self.callback.as_json() if self.callback else None,
            None if self.data is None else encode(self.data, f"data of {self.command}").encode(),
            self.user_id, self.group_id, self.tenant_id,
        )  # fmt: skip

    def _args(self) -> str:
        if not self.args:
            return "[]"
        args = list(self.args) if isinstance(self.args, list | tuple) else [self.args]
        return encode(args, f"args of {self.command}")

    def given(self) -> frozenset[str]:
        """The fields that say something: what a search for an equal message compares (reference 5.3)."""
        named = frozenset(each.name for each in fields(self) if getattr(self, each.name) != each.default)
        return (named | {"class_name", "method_name", "queue_name", "zone"}) - {"data"}

    def key(self, match: frozenset[str], origin: Origin) -> str:
        """A hash of the fields in `match`: two messages with the same key are one."""
        columns = dict(zip(COLUMNS, self.row(origin), strict=True))
        columns["callback"] = columns.pop("miq_callback")
        if "args" in match:
            columns["args"] = json.dumps(json.loads(columns["args"]), sort_keys=True)
        same = sorted((name, columns[name]) for name in match)
        return hashlib.sha256(json.dumps(same, default=str).encode()).hexdigest()


def encode(value: Any, about: str) -> str:  # noqa: ANN401 - any JSON value
    """The value as JSON text. Raises BadMessage for what JSON, or a column, cannot hold."""
    try:
        text = json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise BadMessage(f"{about} cannot be sent: {error}; rows go as their ids, times as text") from None
    if "\\u0000" in text:
        raise BadMessage(f"{about} cannot be sent: a text holds a NUL character")
    return text
