"""A manager's rows, turned into what a connection is made of."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy.orm import Session

from miq.connections import connection_spec, proxy_url
from miq.db import Database
from miq.errors import SecretError
from miq.models import Authentication, Endpoint, ExtManagementSystem
from miq.paths import Home
from miq.secrets import Key
from miq.settings import Settings
from tests.parts.managers import SECRET, add_amazon

NONE = Settings({})


def put(session: Session, ems: ExtManagementSystem, row: Any) -> None:
    row.resource_type, row.resource_id = "ExtManagementSystem", ems.id
    session.add(row)
    session.flush()


def test_everything(database: Database, home: Home) -> None:
    settings = Settings({"ems_refresh": {"ec2": {"page_size": 7}}})
    with database.session() as session:
        ems = add_amazon(session, home, "https://ec2.local", hostname="h", port=8443, verify_ssl=0)
        spec = connection_spec(session, ems, settings)
        assert (spec.ems_id, spec.name, spec.provider_region) == (ems.id, "aws", "us-east-1")
        assert (spec.endpoint_url, spec.hostname, spec.port, spec.verify_ssl) == ("https://ec2.local", "h", 8443, False)
        assert (spec.credentials.userid, spec.credentials.password) == ("AKIAKEY", SECRET)
        assert (spec.http_proxy, spec.settings) == (None, {"page_size": 7})
        assert SECRET not in repr(spec)


def test_a_manager_without_rows(database: Database, home: Home) -> None:
    with database.session() as session:
        ems = ExtManagementSystem(name="bare", type="Nobody")
        session.add(ems)
        session.flush()
        spec = connection_spec(session, ems, NONE)
        assert (spec.endpoint_url, spec.credentials.userid, spec.verify_ssl) == (None, None, True)


def test_a_child_is_reached_through_its_parent(database: Database, home: Home) -> None:
    with database.session() as session:
        parent = add_amazon(session, home, "https://ec2.local")
        child = ExtManagementSystem(name="child", type="Nobody", parent_ems_id=parent.id)
        session.add(child)
        session.flush()
        spec = connection_spec(session, child, NONE)
        assert (spec.ems_id, spec.endpoint_url, spec.credentials.password) == (child.id, "https://ec2.local", SECRET)


def test_proxies(database: Database, home: Home) -> None:
    shared = {"http_proxy": {"default": {"host": "proxy", "port": 3128, "user": "me", "password": "p@ss"}}}
    own = {"http_proxy": {**shared["http_proxy"], "ec2": {"host": "https://ec2proxy"}}}
    with database.session() as session:
        ems = add_amazon(session, home, "https://ec2.local")
        assert connection_spec(session, ems, Settings(shared)).http_proxy == "http://me:p%40ss@proxy:3128"
        assert connection_spec(session, ems, Settings(own)).http_proxy == "https://ec2proxy"
        put(session, ems, Endpoint(role="http_proxy", url="http://mine:8080"))
        assert connection_spec(session, ems, Settings(own)).http_proxy == "http://mine:8080"
        key = Key.load(home.key_file)
        put(session, ems, Authentication(authtype="http_proxy", userid="you", password=key.encrypt("a/b")))
        assert connection_spec(session, ems, NONE).http_proxy == "http://you:a%2Fb@mine:8080"


def test_another_key_is_told(database: Database, home: Home) -> None:
    with database.session() as session:
        ems = add_amazon(session, home, "https://ec2.local")
        other = Key.load_or_create(home.path / "keys" / "other")
        with pytest.raises(SecretError):
            connection_spec(session, ems, NONE, key=other)
        home.key_file.unlink()
        with pytest.raises(SecretError):
            connection_spec(session, ems, NONE)


def test_proxy_urls() -> None:
    assert proxy_url("proxy:1", None, None) == "proxy:1"
    assert proxy_url("proxy:1", "me", None) == "http://me@proxy:1"
    assert proxy_url("https://old:one@proxy", "me", "x:y") == "https://me:x%3Ay@proxy"
