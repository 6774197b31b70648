"""Encryption at rest: the key file, the stored form, and what must never be seen."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from miq.errors import SecretError
from miq.paths import CHECKOUT
from miq.secrets import Key, Secret, check_fingerprint, rotate


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys" / "v2_key"


@pytest.fixture
def key(path: Path) -> Key:
    return Key.load_or_create(path)


def test_round_trip_in_manageiqs_form(key: Key) -> None:
    for text in ("", "secret", "пароль ✓", "x" * 10_000):
        stored = key.encrypt(text)
        assert stored.startswith("v2:{") and stored.endswith("}")
        assert key.decrypt(stored) == text
    assert key.encrypt("same") != key.encrypt("same")


def test_the_key_is_made_once_private_and_alone(key: Key, path: Path) -> None:
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert list(path.parent.iterdir()) == [path]
    assert Key.load_or_create(path).fingerprint == Key.load(path).fingerprint == key.fingerprint
    assert len(key.fingerprint) == 16 and int(key.fingerprint, 16)


def test_racing_processes_agree_on_one_key(path: Path) -> None:
    program = "import sys; from pathlib import Path; from miq.secrets import Key; sys.stdin.readline(); "
    program += "print(Key.load_or_create(Path(sys.argv[1])).fingerprint)"
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=CHECKOUT,
        )
        for _ in range(6)
    ]
    for racer in racers:
        assert racer.stdin
        racer.stdin.write("\n")
        racer.stdin.flush()
    prints = {racer.communicate(timeout=60)[0].strip() for racer in racers}
    assert prints == {Key.load(path).fingerprint}
    assert list(path.parent.iterdir()) == [path]


def test_a_faster_process_wins(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = Key.load_or_create(path)
    monkeypatch.setattr(Path, "exists", lambda self: False)  # both looked before either made it
    assert Key.load_or_create(path).fingerprint == other.fingerprint
    monkeypatch.undo()
    assert list(path.parent.iterdir()) == [path]


def test_a_missing_key_is_named(path: Path) -> None:
    with pytest.raises(SecretError, match=f"no key file {path}: put it back"):
        Key.load(path)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("a file where the folder should be")
    with pytest.raises(SecretError, match=r"v2_key cannot be made .*: give its folder"):
        Key.load_or_create(tmp_path / "keys" / "v2_key")


@pytest.mark.parametrize("content", [b"", b"not a key", b"\xff\xfe", b"A" * 43])
def test_a_damaged_key_is_named_and_not_shown(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(SecretError, match=f"{path} is damaged") as caught:
        Key.load(path)
    assert caught.value.__cause__ is None
    assert "not a key" not in str(caught.value)


@pytest.mark.parametrize("stored", ["", "v2:{}", "v2:{AAAA}", "plain", "v1:{AAAA}", "v2:{пароль}"])
def test_a_damaged_token_names_the_field_and_not_the_content(key: Key, stored: str) -> None:
    with pytest.raises(SecretError, match="authentications 12 password is damaged") as caught:
        key.decrypt(stored, field="authentications 12 password")
    assert "AAAA" not in str(caught.value)
    assert "пароль" not in str(caught.value)


def test_a_changed_token_and_a_token_of_another_key(key: Key, tmp_path: Path) -> None:
    stored = key.encrypt("secret")
    changed = stored[:30] + ("A" if stored[30] != "A" else "B") + stored[31:]
    other = Key.load_or_create(tmp_path / "other")
    for reader, token in ((key, changed), (other, stored)):
        with pytest.raises(SecretError, match="a stored credential is damaged"):
            reader.decrypt(token)


def test_the_fingerprint_of_the_database(key: Key, tmp_path: Path) -> None:
    check_fingerprint(key, None)
    check_fingerprint(key, key.fingerprint)
    other = Key.load_or_create(tmp_path / "other")
    with pytest.raises(SecretError, match=r"encrypted with another key .*: put MIQ_HOME/keys/v2_key back") as caught:
        check_fingerprint(key, other.fingerprint)
    assert "\n" not in str(caught.value)


def test_rotation(key: Key, tmp_path: Path) -> None:
    new = Key.load_or_create(tmp_path / "new")
    stored = rotate(key, new, key.encrypt("secret"))
    assert new.decrypt(stored) == "secret"
    with pytest.raises(SecretError):
        key.decrypt(stored)


def test_a_key_that_others_may_read_is_a_warning(key: Key, path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path.chmod(0o644)
    Key.load(path)
    assert f"others may read {path}" in caplog.text


def test_nothing_shows_the_key(key: Key, path: Path) -> None:
    content = path.read_text().strip()
    for shown in (repr(key), str(key), f"{key}", repr([key])):
        assert content not in shown
    assert key.fingerprint in repr(key)


def test_a_secret_in_memory_shows_itself_to_reveal_only() -> None:
    secret = Secret("hunter2")
    assert secret.reveal() == "hunter2"
    for shown in (str(secret), repr(secret), f"{secret}", f"{secret!r:>30}", "%s" % secret, repr({"password": secret})):  # noqa: UP031
        assert "hunter2" not in shown and "********" in shown
    assert secret == Secret("hunter2") and secret != Secret("hunter3")
    assert secret != "hunter2"
    assert hash(secret) == hash(Secret("hunter2"))
    assert secret and not Secret("")
    with pytest.raises(TypeError):
        json.dumps(secret)
    with pytest.raises(TypeError):
        "".join([secret])  # type: ignore[list-item]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_a_key_of_somebody_else_is_named(key: Key, path: Path) -> None:
    path.chmod(0)
    with pytest.raises(SecretError, match="cannot be read"):
        Key.load(path)
