"""A simulated AWS account over HTTP, emptied before each test, and a manager for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.parts import moto


@pytest.fixture(scope="session")
def moto_url() -> Iterator[str]:
    """A running moto."""
    with moto.moto_server() as url:
        yield url


@pytest.fixture
def aws(moto_url: str) -> str:
    """The URL of an empty account."""
    moto.reset(moto_url)
    return moto_url
