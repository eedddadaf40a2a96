"""Receipts once they are signed: kept in files, claimed, and compared between stages."""

import errno
import os
from contextlib import closing

import pytest

from shoestring.errors import BadValueError
from shoestring.swarm.proof.books import ReceiptBook, check_stages
from shoestring.swarm.proof.keeping import ReceiptFiles
from shoestring.swarm.proof.receipts import amount
from tests.swarm.receipts import Link, graph, parties_in, positions


@pytest.fixture(scope="module")
def parties(tmp_path_factory):
    """Client, node, and another."""
    return parties_in(tmp_path_factory.mktemp("parties"))


@pytest.fixture(scope="module")
def receipts(parties):
    """Return a session's receipts."""
    link = Link(*parties[:2])
    link.tell(graph([3]))
    for number in range(4):
        link.step(number)
        link.settle(number + 2)
    return link.here


@pytest.fixture
def said():
    """Return what was said of files."""
    return []


@pytest.fixture
def kept(receipts, tmp_path, said):
    """Return files that keep all of a session's receipts, and its file."""
    files = ReceiptFiles(tmp_path / "receipts", said.append)
    with closing(files):
        for signed in receipts:
            files.keep(signed)
    (path,) = files.sessions()
    return files, path


def test_files_are_private_and_one_a_session(receipts, kept, said):
    """Each line is a receipt; who else may read them is said."""
    files, path = kept
    assert files.read(path) == receipts
    assert path.stat().st_mode & 0o777 == 0o600
    assert said == []
    path.chmod(0o644)
    with pytest.raises(BadValueError, match="open to others"):
        files.read(path)


@pytest.mark.parametrize(
    ("damage", "whole", "why"),
    [
        (lambda lines: b"\n".join(lines)[:-1], 3, "last line is cut"),
        (lambda lines: b"\n".join(lines[:2]) + b"\nx\n" + lines[2] + b"\n", 2, "no JSON"),
        (lambda lines: b"\n".join([lines[0], *lines[2:]]) + b"\n", 1, "missing or moved"),
    ],
)
def test_of_a_damaged_file_what_stands_before_the_damage_counts(
    receipts, kept, said, damage, whole, why
):
    """A crash costs the last receipt, not the session; what is lost is said."""
    files, path = kept
    path.write_bytes(damage(path.read_bytes().split(b"\n")[:-1]))
    assert files.read(path) == receipts[:whole]
    (line,) = said
    assert why in line
    assert f"the {whole} receipts before that count" in line


@pytest.mark.parametrize("content", [b"", b"x", b"x\n", b"\n"])
def test_a_file_without_a_receipt_is_refused(kept, content):
    """There is nothing to go on from."""
    files, path = kept
    path.write_bytes(content)
    with pytest.raises(BadValueError, match="no receipt of it counts"):
        files.read(path)


def test_a_name_that_a_node_gives_twice_spoils_no_file(receipts, kept, said):
    """The first session's receipts stay as they are."""
    files, path = kept
    before = path.read_bytes()
    with closing(files):
        files.keep(receipts[0])
    assert path.read_bytes() == before
    assert f"{receipts[0].receipt.terms.node} had a session of this name" in said[0]


def test_no_file_begins_in_the_middle(receipts, tmp_path, said):
    """Where the first receipt was not kept, the later ones are not either, and that is said."""
    with closing(ReceiptFiles(tmp_path / "receipts", said.append)) as files:
        files.keep(receipts[1])
    assert files.sessions() == []
    assert "is not kept" in said[0]


@pytest.mark.parametrize("what", ["MOST_FILES", "MOST_TOTAL_BYTES", "MOST_BYTES"])
def test_files_have_bounds(receipts, tmp_path, said, monkeypatch, what):
    """In their number, each alone, and all together; nothing is written in parts."""
    most = {"MOST_FILES": 0, "MOST_TOTAL_BYTES": 3_000, "MOST_BYTES": 3_000}[what]
    monkeypatch.setattr(f"shoestring.swarm.proof.keeping.{what}", most)
    with closing(ReceiptFiles(tmp_path / "receipts", said.append)) as files:
        for signed in receipts:
            files.keep(signed)
    total = sum(path.stat().st_size for path in files.sessions())
    assert total <= most
    assert "is not kept" in said[-1]
    for path in files.sessions():
        assert files.read(path) == receipts[: len(files.read(path))]


@pytest.mark.parametrize(
    ("what", "most", "why"),
    [("MOST_FILES", 1, "there are 1 files"), ("MOST_TOTAL_BYTES", 1 << 26, "have 67108864 bytes")],
)
def test_who_has_no_room_for_one_more_session_knows_it_before(kept, monkeypatch, what, most, why):
    """For its whole file; once the oldest are moved away there is room again."""
    files, path = kept
    assert files.why_not() is None
    monkeypatch.setattr(f"shoestring.swarm.proof.keeping.{what}", most)
    assert why in files.why_not()
    assert "move the oldest away" in files.why_not()
    path.rename(path.with_suffix(".old"))
    assert files.why_not() is None


def fill_disk(patch):
    """Let the disk have room for a part of one line, and then for none."""
    write, parts = os.write, []

    def write_a_part(descriptor, data):
        parts.append(data)
        if len(parts) > 1:
            raise OSError(errno.ENOSPC, "no space")
        return write(descriptor, data[:50])

    patch.setattr("shoestring.swarm.proof.keeping.os.write", write_a_part)


def test_a_full_disk_leaves_no_half_line(receipts, kept, said, monkeypatch):
    """What was written of a line is taken back."""
    files, path = kept
    before = b"".join(signed.line + b"\n" for signed in receipts[:2])
    path.write_bytes(before)
    fill_disk(monkeypatch)
    with closing(files):
        files.keep(receipts[2])
    assert "no space" in said[0]
    assert path.read_bytes() == before


def test_a_disk_that_was_full_at_the_first_receipt_leaves_no_file(
    receipts, tmp_path, said, monkeypatch
):
    """The next receipt, for which there is room again, would begin it in the middle."""
    files = ReceiptFiles(tmp_path / "receipts", said.append)
    with monkeypatch.context() as patch, closing(files):
        fill_disk(patch)
        files.keep(receipts[0])
    assert files.sessions() == []
    with closing(files):
        files.keep(receipts[1])
    assert files.sessions() == []
    assert "no space" in said[0]
    assert "No such file" in said[1]


def test_a_book_that_outlives_a_process_begins_with_what_was_claimed(receipts):
    """Not even after a restart is anything claimed twice."""
    book = ReceiptBook([receipts[:2]])
    with pytest.raises(BadValueError, match="was claimed before"):
        book.claim(receipts[:2])
    assert book.claim(receipts) == amount(receipts[-1].receipt) - amount(receipts[1].receipt)


def two_stages(parties):
    """Return two neighbours that have computed two windows of the same steps."""
    first, second = Link(*parties[:2]), Link(*parties[::2])
    for link, layer in ((first, 3), (second, 4)):
        link.tell(graph([layer]))
        for number in range(4):
            link.step(number + layer, layer=layer)
            if number % 2:
                link.settle(number + 2)
    return first, second


@pytest.mark.parametrize("more", [0, 1])
def test_a_session_that_ends_in_mid_step_accuses_nobody(parties, more):
    """One stage was a step, or half of one, ahead when the last window was closed."""
    first, second = two_stages(parties)
    assert check_stages([first.here, second.here]) == 2
    for _ in range(more):
        first.step(9, layer=3)
        second.step(10, layer=4)
    first.step(11, layer=3)
    second.tell(positions(1))
    for link in (first, second):
        link.settle(None)
    assert [len(link.here) for link in (first, second)] == [3, 3]
    assert check_stages([first.here, second.here]) == 2


def test_a_window_that_was_closed_early_spoils_the_next_one_alone(parties):
    """It holds more steps than it says, the next one fewer, and the one after that as many."""
    first, second = two_stages(parties)
    for number in range(6):
        first.step(20 + number, layer=3)
        second.step(21 + number, layer=4)
        if number == 1:
            second.settle(None)
        if number in {3, 5}:
            for link in (first, second):
                link.settle(6 + number)
    assert check_stages([first.here, second.here]) == 3
