"""What the tests of the queue share: every test finds the registry of methods whole, and leaves it as it was."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from miq.queue import methods


@pytest.fixture(autouse=True)
def registry() -> Iterator[None]:
    """A test may register what it likes."""
    methods.load_methods()
    before = dict(methods._methods)
    yield
    methods._methods.clear()
    methods._methods.update(before)
