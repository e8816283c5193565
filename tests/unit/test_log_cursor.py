"""LogCursor returns each line once, in order, through breaks and rotations."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runway.log_cursor import LogCursor, Piece
from tests.support.fake_logs import SECOND, START, Record, kubelet


def pieces(data: bytes, seed: int) -> Iterator[bytes]:
    chance = random.Random(seed)
    while data:
        size = chance.choice((1, 2, 7, 40, 1000))
        yield data[:size]
        data = data[size:]


def text_of(taken: list[Piece], *, timestamps: bool) -> bytes:
    return b"".join((time + b" " if time and timestamps else b"") + text for time, text in taken)


def read(cursor: LogCursor, data: bytes, seed: int = 0) -> list[Piece]:
    return [piece for chunk in pieces(data, seed) for piece in cursor.feed(chunk)]


@st.composite
def logs(draw: st.DrawFn, *, increasing: bool = False) -> list[Record]:
    """Generate a log whose times cross seconds. They often repeat and sometimes decrease, unless `increasing`."""
    steps = st.sampled_from(
        [1, 1000, SECOND // 3] if increasing else [0, 0, 0, 1, 1000, -1000, SECOND // 3, 2 * SECOND]
    )
    text = st.sampled_from([b"", b"a", b"same", b"2026-11-24T08:00:00.000000000Z not a time", b"\xff\x00\r", b"x" * 50])
    records: list[Record] = []
    time = START + SECOND // 2
    for _ in range(draw(st.integers(0, 25))):
        time += draw(steps)
        partial = draw(st.integers(0, 4)) == 0
        records.append(Record(time, (draw(text) or b"-") if partial else draw(text), partial=partial))
    return records


@settings(max_examples=300)
@given(logs(), st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), max_size=5), st.integers())
def test_each_line_is_returned_once_and_in_order_after_breaks(
    records: list[Record], breaks: list[tuple[float, float]], seed: int
) -> None:
    """A break is a pair: the written share of the log, and the received share of the kubelet's bytes."""
    cursor = LogCursor()
    taken: list[Piece] = []
    written = 0
    for share, arrived in breaks:
        written = max(written, int(share * len(records)))
        data = kubelet(records[:written], cursor.since)
        taken += read(cursor, data[: int(arrived * len(data))], seed)
        cursor.rewind()
    taken += read(cursor, kubelet(records, cursor.since), seed)
    assert text_of(taken, timestamps=True) == kubelet(records)
    assert cursor.unexpected_text == ""


@given(logs(), st.lists(st.floats(0, 1), max_size=4), st.integers())
def test_rereading_from_the_beginning_returns_each_line_once(
    records: list[Record], breaks: list[float], seed: int
) -> None:
    cursor = LogCursor()
    taken: list[Piece] = []
    for arrived in breaks:
        data = kubelet(records)
        taken += read(cursor, data[: int(arrived * len(data))], seed)
        cursor.rewind()
    taken += read(cursor, kubelet(records), seed)
    assert text_of(taken, timestamps=True) == kubelet(records)


def lines(*texts: str, start: int = START, step: int = 1000) -> list[Record]:
    return [Record(start + index * step, text.encode()) for index, text in enumerate(texts)]


def test_tail_excludes_older_lines_after_reconnect() -> None:
    log = lines(*"abcdef")
    cursor = LogCursor(from_start=False)
    assert text_of(read(cursor, kubelet(log[4:])), timestamps=False) == b"e\nf\n"
    cursor.rewind()
    assert read(cursor, kubelet(log, cursor.since)) == []
    assert text_of(read(cursor, kubelet(lines("g", start=START + SECOND))), timestamps=False) == b"g\n"


def test_new_lines_are_returned_after_rotation() -> None:
    cursor = LogCursor()
    read(cursor, kubelet(lines("a", "b", "c")))
    cursor.rewind()
    rotated = lines("c", "d", start=START + 2000)
    assert text_of(read(cursor, kubelet(rotated, cursor.since)), timestamps=False) == b"d\n"


def test_newline_is_added_to_line_whose_rest_is_lost() -> None:
    cursor = LogCursor()
    taken = read(cursor, kubelet([Record(START, b"begun", partial=True)]))
    cursor.rewind()
    taken += read(cursor, kubelet(lines("next", start=START + SECOND)))
    assert text_of(taken, timestamps=False) == b"begun\nnext\n"


@settings(max_examples=300)
@given(logs(increasing=True), st.data(), st.integers())
def test_line_that_a_rotation_cuts_is_returned_once(records: list[Record], data: st.DataObject, seed: int) -> None:
    """The first connection ends before the rotation, or follows it until a line of the new file has begun."""
    rotated = data.draw(st.integers(0, len(records)), "first record of the new file")
    followed = data.draw(st.integers(rotated, len(records)), "records of the first connection")
    if all(at > 0 and records[at - 1].partial for at in range(rotated, followed)):
        followed = rotated
    cursor = LogCursor()
    taken = read(cursor, kubelet(records[:followed]), seed)
    for written in (data.draw(st.integers(followed, len(records)), "records of the second"), len(records)):
        cursor.rewind(whole=True)
        taken += read(cursor, kubelet(records[rotated:written], cursor.since), seed)
    assert text_of(taken, timestamps=True) == kubelet(records)


def test_rest_of_a_line_that_a_rotation_cut_is_not_repeated() -> None:
    log = [Record(START, b"be", partial=True), Record(START + 1, b"gun"), Record(START + 2, b"next")]
    cursor = LogCursor()
    assert text_of(read(cursor, kubelet(log)), timestamps=False) == b"begun\nnext\n"
    for _ in range(2):
        cursor.rewind(whole=True)
        assert read(cursor, kubelet(log[1:], cursor.since)) == []
        assert cursor.caught_up


def test_line_that_a_rotation_cut_continues_in_the_next_file() -> None:
    log = [Record(START, b"be", partial=True), Record(START + 1, b"gun"), Record(START + 2, b"next")]
    cursor = LogCursor()
    taken = read(cursor, kubelet(log[:1]))
    cursor.rewind(whole=True)
    taken += read(cursor, kubelet(log[1:], cursor.since))
    assert text_of(taken, timestamps=True) == kubelet(log)


def test_clock_set_back_loses_no_line() -> None:
    before, after = lines("a", "b", start=START + 60 * SECOND), lines("c", "d")
    cursor = LogCursor()
    taken = read(cursor, kubelet(before + after[:1]))
    cursor.rewind()
    taken += read(cursor, kubelet(before + after, cursor.since))
    assert text_of(taken, timestamps=False) == b"a\nb\nc\nd\n"


def test_resume_is_exact_with_few_remembered_lines() -> None:
    log = lines(*(str(number) for number in range(50)), step=0) + lines("last", start=START + 5)
    cursor = LogCursor(remember=8)
    taken = read(cursor, kubelet(log[:50]))
    cursor.rewind()
    taken += read(cursor, kubelet(log, cursor.since))
    assert text_of(taken, timestamps=False) == b"".join(record.text + b"\n" for record in log)


def test_long_line_is_returned_in_pieces() -> None:
    cursor = LogCursor()
    whole = kubelet([Record(START, b"x" * 16384, partial=True)] * 200)
    sizes = [len(piece.text) for chunk in (whole[at : at + 65536] for at in range(0, len(whole), 65536))
             for piece in cursor.feed(chunk)]  # fmt: skip
    assert sum(sizes) == 200 * 16384
    assert max(sizes) <= 65536


@pytest.mark.parametrize("offset", ["Z", "+02:00", "-09:30"])
@pytest.mark.parametrize("fraction", ["", ".5", ".000000001"])
def test_every_time_format_is_accepted(offset: str, fraction: str) -> None:
    time = f"2026-11-24T08:00:00{fraction}{offset}"
    assert LogCursor().feed(f"{time} x\n".encode()) == [Piece(time.encode(), b"x\n")]


KUBELET_TEXTS = [
    b"unable to retrieve container logs for containerd://abc",
    b"failed to create fsnotify watcher: too many open files",
    b"2026-99-99T08:00:00Z no such day\n",
    b"short",
]


@pytest.mark.parametrize("said", KUBELET_TEXTS)
def test_text_of_the_kubelet_is_not_returned_as_log(said: bytes) -> None:
    cursor = LogCursor()
    taken = read(cursor, kubelet(lines("a")) + said)
    assert text_of(taken, timestamps=False) == b"a\n"
    assert cursor.unexpected_text == said.decode()
    cursor.rewind()
    assert cursor.unexpected_text == ""
    assert read(cursor, said) == []
    if not said.endswith(b"\n"):
        assert cursor.unexpected_text == said.decode()
    cursor.rewind()
    assert text_of(read(cursor, kubelet(lines("a", "b"), cursor.since)), timestamps=False) == b"b\n"


@pytest.mark.parametrize(
    ("time", "since"),
    [
        (b"0001-01-01T00:00:00+23:59", "1970-01-01T00:00:00"),
        (b"1969-12-31T23:59:59Z", "1970-01-01T00:00:00"),
        (b"9999-12-31T23:59:59-23:59", "9999-12-31T23:59:59"),
    ],
)
def test_since_after_line_of_unusual_year_is_a_valid_time(time: bytes, since: str) -> None:
    cursor = LogCursor()
    cursor.feed(time + b" a line\n")

    assert cursor.since == datetime.fromisoformat(since).replace(tzinfo=UTC)
