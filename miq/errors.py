"""Every error that `miq` raises on purpose, in one tree.

    MiqError                         base; its text is one line that names the thing and the fix
    ├── UsageError                   the user's input is wrong: exit code 2 at the command line
    │   ├── SettingsError            a settings file or row that cannot be used
    │   ├── UnknownWorkerType        a worker class nobody registered
    │   ├── UnknownProvider          a provider name nobody registered
    │   ├── UnknownManager           no manager of that name or id
    │   ├── DatabaseError            the DSN, or the server behind it
    │   │   ├── SchemaOutdated       `miq db migrate` has to run first
    │   │   └── SchemaTooNew         the code is older than the database
    │   ├── SecretError              the encryption key is missing, damaged or another one
    │   ├── AlreadyRunning           a second server on one MIQ_HOME
    │   └── PostgresError            the embedded PostgreSQL cannot be started
    ├── ProviderError                a manager's API: what its user can act on
    │   ├── InvalidCredentials       status Invalid
    │   ├── IncompleteCredentials    status Incomplete
    │   └── ProviderUnreachable      status Unreachable: endpoint, TLS, proxy or time-out
    ├── RefreshFailed                a refresh ended in state error
    ├── IllegalMove                  a status that may not follow another one
    ├── BadMessage                   a queue row that cannot be read or names nothing callable
    ├── MessageTimeout               a message ran past its msg_timeout
    └── StopRequested                a commanded stop reached long work between two pages

`RetryLater` and `ExitNow` are control flow, not failures, and stand outside the tree.
"""

from __future__ import annotations

from datetime import datetime


class MiqError(Exception):
    """Something went wrong that `miq` knows how to name."""


class UsageError(MiqError):
    """The input cannot be used."""


class SettingsError(UsageError):
    """A setting cannot be used."""


class UnknownWorkerType(UsageError):
    """No such worker class; `miq-worker -l` lists them."""


class UnknownProvider(UsageError):
    """No such provider; `miq ems types` lists them."""


class UnknownManager(UsageError):
    """No such manager; `miq ems list` lists them."""


class DatabaseError(UsageError):
    """The database cannot be used."""


class SchemaOutdated(DatabaseError):
    """The database schema is older than this program: run `miq db migrate`."""


class SchemaTooNew(DatabaseError):
    """The database schema is newer than this program: install the newer `miq`."""


class SecretError(UsageError):
    """The encryption key cannot be used."""


class AlreadyRunning(UsageError):
    """Another server runs on this MIQ_HOME."""


class PostgresError(UsageError):
    """The embedded PostgreSQL cannot be started."""


class ProviderError(MiqError):
    """The manager's API answered with an error."""


class InvalidCredentials(ProviderError):
    """Login failed due to a bad username or password."""


class IncompleteCredentials(ProviderError):
    """Missing credentials."""


class ProviderUnreachable(ProviderError):
    """The manager's endpoint cannot be reached."""


class RefreshFailed(MiqError):
    """The inventory refresh failed."""


class IllegalMove(MiqError):
    """A status change that the table of moves does not allow."""


class BadMessage(MiqError):
    """A queue row that cannot be delivered."""


class MessageTimeout(MiqError):
    """The message ran longer than its msg_timeout."""


class StopRequested(MiqError):
    """The worker was asked to stop; the work goes back without an attempt."""


class RetryLater(Exception):
    """Raised by a queue method that wants its message back, not before `deliver_on` (UTC)."""

    def __init__(self, deliver_on: datetime | None = None) -> None:
        if not isinstance(deliver_on, datetime | None):
            raise TypeError(f"deliver_on is {deliver_on!r}: give a datetime (UTC), or None for at once")
        super().__init__(f"retry later, not before {deliver_on}")
        self.deliver_on = deliver_on


class ExitNow(BaseException):
    """Ends a worker from anywhere below its loop, with an exit code. Not an Exception: no handler may swallow it."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
