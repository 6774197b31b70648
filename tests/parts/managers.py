"""Rows of managers, put in directly: for tests of what works on managers, not of how they are added."""

from __future__ import annotations

from typing import Any

from sqlalchemy.orm import Session

from miq.models import Authentication, Endpoint, ExtManagementSystem
from miq.paths import Home
from miq.secrets import Key

AMAZON = "ManageIQ::Providers::Amazon::CloudManager"
SECRET = "wJalrXUtnFEMI/K7MDENG/verysecret"


def add_amazon(session: Session, home: Home, url: str, *, name: str = "aws", **endpoint: Any) -> ExtManagementSystem:
    """An Amazon manager in us-east-1 with an access key, reached at `url`."""
    key = Key.load_or_create(home.key_file)
    ems = ExtManagementSystem(name=name, type=AMAZON, provider_region="us-east-1", enabled=True)
    session.add(ems)
    session.flush()
    of_manager = {"resource_type": "ExtManagementSystem", "resource_id": ems.id}
    session.add(Endpoint(role="default", url=url, **of_manager, **endpoint))
    session.add(Authentication(authtype="default", userid="AKIAKEY", password=key.encrypt(SECRET), **of_manager))
    session.commit()
    return ems
