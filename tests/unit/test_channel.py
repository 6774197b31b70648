"""The wires: messages that never block, and a slot that outlives both ends."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from miq.channel import Channel, InHand, Slot


def test_messages_arrive_whole_and_in_order() -> None:
    ours, theirs = Channel.pair()
    other = Channel(theirs)
    assert ours.receive() == {}
    assert other.send("forked", pid=7) and other.send("started")
    assert ours.receive() == {"kind": "forked", "pid": 7}
    assert ours.receive() == {"kind": "started"}
    other.close()
    assert ours.receive() is None
    assert ours.send("stop") is False
    ours.close()


def test_a_full_channel_is_news_not_a_stall() -> None:
    ours, theirs = Channel.pair()
    sent = 0
    while ours.send("heartbeat", text="x" * 1000):
        sent += 1
        assert sent < 100_000
    assert sent > 10
    ours.close()
    theirs.close()


def test_the_slot_says_what_is_in_hand(tmp_path: Path) -> None:
    writer, reader = Slot(tmp_path / "slot"), Slot(tmp_path / "slot")
    assert reader.read().message_id == 0
    writer.begin(17, 99.5, True)
    seen = reader.read()
    assert (seen.message_id, seen.deadline, seen.idempotent, seen.finished) == (17, 99.5, True, 0)
    writer.end()
    assert (reader.read().message_id, reader.read().finished) == (0, 1)
    writer.close()
    reader.remove()
    assert not (tmp_path / "slot").exists()


def test_a_slot_that_is_written_all_the_time_is_never_read_in_halves(tmp_path: Path) -> None:
    """The server judges deadlines while workers run tens of thousands of messages a second."""
    reader = Slot(tmp_path / "slot")
    writer = os.fork()
    if not writer:
        slot, number = Slot(tmp_path / "slot"), 0
        while True:
            number += 1
            slot.begin(number, float(number), number % 2 == 0)
            slot.end()
    try:
        seen: set[int] = set()
        end = time.monotonic() + 20.0
        while len(seen) < 500 and time.monotonic() < end:
            for _ in range(1000):
                now = reader.read()
                if now.message_id:
                    seen.add(now.message_id)
                    assert (now.deadline, now.idempotent) == (float(now.message_id), now.message_id % 2 == 0)
        assert len(seen) > 5, "both ran"
    finally:
        os.kill(writer, signal.SIGKILL)
        os.waitpid(writer, 0)
        reader.remove()


def test_what_is_over_stays_in_hand_until_its_end_is_written(tmp_path: Path) -> None:
    slot = Slot(tmp_path / "slot")
    slot.begin(17, 99.5, False)
    slot.over()
    assert slot.read() == InHand(17, 99.5, False, 1, over=True)
    slot.rest()
    assert (slot.read().message_id, slot.read().finished) == (0, 1)
    slot.begin(18, 1.0, True)
    assert (slot.read().over, slot.read().idempotent) == (False, True)
    slot.remove()


def test_a_slot_that_is_gone_or_of_another_boot_tells_nothing(tmp_path: Path) -> None:
    path = tmp_path / "slot"
    assert Slot.peek(path) is None
    slot = Slot(path)
    slot.begin(17, 99.5, True)
    found = Slot.peek(path)
    assert found is not None and found.message_id == 17
    with path.open("r+b") as page:
        page.seek(64)
        page.write(bytes(16))
    assert Slot.peek(path) is None
    slot.remove()
