"""Where a secret comes from: standard input, a file, an environment variable or a prompt; never the command line.

The command line of a process is everybody's to read, so no option takes a secret itself; an HTTP proxy's URL
with a password in it is refused there for the same reason.
"""

from __future__ import annotations

import getpass
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer

from miq.errors import UsageError

PasswordStdin = Annotated[bool, typer.Option("--password-stdin", help="Read the secret from standard input.")]
PasswordFile = Annotated[Path | None, typer.Option("--password-file", help="Read the secret from a file.")]
PasswordEnv = Annotated[str | None, typer.Option("--password-env", help="Read the secret from this variable.")]
HttpProxy = Annotated[str | None, typer.Option("--http-proxy", help="http://HOST:PORT, without a password.")]
HttpProxyEnv = Annotated[
    str | None, typer.Option("--http-proxy-env", help="Variable with the proxy's URL, user and password included.")
]


@dataclass(frozen=True)
class SecretSource:
    """What the options say; at most one of them."""

    stdin: bool = False
    file: Path | None = None
    env: str | None = None

    def read(self) -> str | None:
        """The secret, None when no option names a source. Raises UsageError for one that holds none."""
        if sum((self.stdin, self.file is not None, self.env is not None)) > 1:
            raise UsageError("give one of --password-stdin, --password-file, --password-env")
        if self.stdin:
            return _filled(sys.stdin.readline(), "standard input")
        if self.file is not None:
            return _filled(_file_text(self.file), str(self.file))
        if self.env is not None:
            return _filled(_variable(self.env), f"variable {self.env}")
        return None

    def read_or_ask(self, label: str) -> str:
        """The secret from its source, else from a person at the terminal."""
        found = self.read()
        if found is not None:
            return found
        if not sys.stdin.isatty():
            raise UsageError(f"no {label} given: --password-stdin, --password-file FILE or --password-env VARIABLE")
        return _filled(getpass.getpass(f"{label}: "), "the prompt")


def ask(label: str, option: str) -> str:
    """A word that is no secret, from a person at the terminal."""
    if not sys.stdin.isatty():
        raise UsageError(f"no {label} given: {option}")
    return str(typer.prompt(label, err=True))


def proxy_url(url: str | None, variable: str | None) -> str | None:
    """The proxy that the options name. Raises UsageError for a password on the command line."""
    if url is not None and variable is not None:
        raise UsageError("give one of --http-proxy, --http-proxy-env")
    if variable is not None:
        return _variable(variable)
    if url and "@" in url and ":" in urlsplit(url).netloc.rpartition("@")[0]:
        raise UsageError("a password on the command line is everybody's to read: use --http-proxy-env VARIABLE")
    return url


def _filled(text: str, source: str) -> str:
    secret = text.rstrip("\r\n")
    if not secret:
        raise UsageError(f"there is no secret in {source}")
    return secret


def _file_text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None


def _variable(name: str) -> str:
    if name not in os.environ:
        raise UsageError(f"variable {name} is not set")
    return os.environ[name]
