"""The wires: messages that never block, and a slot that outlives both ends."""

from __future__ import annotations

from pathlib import Path

from miq.channel import Channel, Slot


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
