"""Where a manager is reached, checked before it is written: region, URLs, proxy, certificates.

Pure: in go the user's words, out come clean values, or a UsageError that names what is wrong and what would be right.
No secret passes here except a proxy's, which `split_proxy` takes out of the URL.
"""

from __future__ import annotations

import difflib
import ssl
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

from miq.errors import UsageError


def checked_name(name: str) -> str:
    """A manager's name without the blanks around it."""
    if not name.strip():
        raise UsageError("a manager needs a name")
    return name.strip()


def checked_region(kind: Any, region: str | None) -> str | None:  # noqa: ANN401 - a provider's class
    """The region, which the class of managers must know if it knows any."""
    known = kind.regions()
    if not region:
        if kind.needs_region:
            raise UsageError(f"{kind.description} needs a region: --region NAME, e.g. {next(iter(known), 'NAME')}")
        return None
    if known and region not in known:
        near = ", ".join(difflib.get_close_matches(region, known)) or next(iter(known))
        raise UsageError(f"{kind.description} has no region {region!r}, but {near} ...; `miq ems types --json` has all")
    return region


@dataclass(frozen=True)
class Url:
    """A URL in parts. `text` is the URL without user and password."""

    text: str
    hostname: str
    port: int | None
    userid: str | None = None
    password: str | None = field(default=None, repr=False)


def _parsed(url: str, what: str) -> Url:
    """The URL of `what`. The message never repeats it, for it may hold a password."""
    try:
        parts = urlsplit(url.strip())
        port = parts.port
    except ValueError:
        raise UsageError(f"the {what} is not a URL; write http(s)://HOST[:PORT]") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or any(blank.isspace() for blank in url.strip()):
        raise UsageError(f"the {what} is not an http(s) URL; write http(s)://HOST[:PORT]")
    text = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    userid, password = (unquote(part) if part else None for part in (parts.username, parts.password))
    return Url(text, parts.hostname, port, userid, password)


def checked_endpoint(url: str | None) -> Url | None:
    """The URL of the API; it may hold no user, because it is stored and shown."""
    if not url:
        return None
    parsed = _parsed(url, "endpoint URL")
    if parsed.userid or parsed.password:
        raise UsageError("the endpoint URL holds a user or password: give them as credentials")
    return parsed


def checked_proxy(url: str | None) -> Url | None:
    """The HTTP proxy, its user and password taken out of the URL."""
    return _parsed(url, "HTTP proxy") if url else None


def checked_certificates(text: str | None) -> str | None:
    """One or more CA certificates in PEM."""
    if not text or not text.strip():
        return None
    try:
        ssl.create_default_context(cadata=text)
    except (ssl.SSLError, ValueError):
        raise UsageError("the CA file holds no certificate in PEM (-----BEGIN CERTIFICATE-----)") from None
    return text
