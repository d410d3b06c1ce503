"""Files of records: whole lines or none, whatever happens to the writer."""

from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewright.core.errors import InputError, StorageError
from rewright.core.records import Trajectory, Turn, Verdict
from rewright.core.storage import RecordFile, encode_line, read_jsonl, write_atomically


def verdict(name: str, reason: str = "right") -> Verdict:
    return Verdict(trajectory_id=name, outcome=1.0, reason=reason)


def verdicts(path: Path) -> RecordFile[Verdict]:
    return RecordFile(path, Verdict, lambda one: one.trajectory_id)


def written(path: Path, *names: str) -> RecordFile[Verdict]:
    file = verdicts(path)
    for name in names:
        file.append(verdict(name))
    file.close()
    return file


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """The kernel writes no file beyond `size` bytes: a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_what_was_appended_is_read_in_order(tmp_path: Path) -> None:
    file = written(tmp_path / "v.jsonl", "b", "a", "c")
    assert [one.trajectory_id for one in file] == ["b", "a", "c"] == file.keys_in_order()
    assert file.keys() == {"a", "b", "c"}
    assert list(file) == [verdict("b"), verdict("a"), verdict("c")]


def test_a_file_that_does_not_exist_has_no_records_and_is_not_made_by_reading(tmp_path: Path) -> None:
    file = verdicts(tmp_path / "v.jsonl")
    assert (list(file), file.keys()) == ([], set())
    file.reorder(["a"])
    assert not file.path.exists()


@pytest.mark.parametrize(
    "torn", [b"", b"{", b'{"version":1,"trajectory_id":"c","outc', b'{"trajectory_id":"\xc3', b"\x00\x00"]
)
def test_a_torn_last_line_is_ignored_and_cut_before_the_next_append(tmp_path: Path, torn: bytes) -> None:
    file = written(tmp_path / "v.jsonl", "a", "b")
    with file.path.open("ab") as raw:
        raw.write(torn)
    assert file.keys_in_order() == ["a", "b"]
    file.append(verdict("c"))
    file.close()
    assert file.keys_in_order() == ["a", "b", "c"]
    assert b"\x00" not in file.path.read_bytes()


def test_every_cut_of_the_last_record_leaves_a_file_that_can_be_continued(tmp_path: Path) -> None:
    """Nothing lost and nothing twice: what reading reports as there is still there after the next append."""
    file = written(tmp_path / "v.jsonl", "first", "last")
    whole = file.path.read_bytes()
    start = whole.index(b"\n") + 1
    for cut in range(start, len(whole) + 1):
        file.path.write_bytes(whole[:cut])
        seen = file.keys_in_order()
        file.append(verdict("next"))
        file.close()
        assert file.keys_in_order() == [*seen, "next"], f"cut at byte {cut}"


def test_a_file_of_one_torn_line_starts_anew(tmp_path: Path) -> None:
    path = tmp_path / "v.jsonl"
    path.write_bytes(b'{"version":1,"trajectory_id":"' + b"x" * 200_000)
    assert list(verdicts(path)) == []
    assert written(path, "a").keys_in_order() == ["a"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{nonsense}", "malformed"),
        (b'{"version":1}', "trajectory_id"),
        (b'{"version":2,"trajectory_id":"x","outcome":1.0,"reason":""}', "version"),
        (b'{"version":1,"trajectory_id":"x","outcome":"high","reason":""}', "outcome"),
        (b"[1, 2]", "object"),
        (b"\xff\xfe", "invalid"),
        (b'{"more":' + b"[" * 100_000, "recursion"),
    ],
)
def test_a_corrupt_line_in_the_middle_is_one_clear_line_with_file_and_number(
    tmp_path: Path, line: bytes, reason: str
) -> None:
    file = written(tmp_path / "v.jsonl", "a", "b")
    with file.path.open("ab") as raw:
        raw.write(line + b"\n")
    written(file.path, "c")
    for read in (file.keys, lambda: file.reorder(["c", "a"])):
        with pytest.raises(InputError) as caught:
            read()
        message = str(caught.value)
        assert message.startswith(f"{file.path}:3: ")
        assert reason in message.lower()
        assert "\n" not in message


def test_a_last_line_of_the_wrong_kind_is_a_mistake_and_not_a_torn_line(tmp_path: Path) -> None:
    """A person's editor leaves no line end; only text that breaks off can come from a kill."""
    path = tmp_path / "v.jsonl"
    path.write_bytes(encode_line(verdict("a")) + b'{"version":1,"trajectory_id":"x","outcome":"high","reason":""}')
    with pytest.raises(InputError, match=r"v\.jsonl:2: .*outcome"):
        list(verdicts(path))


@pytest.mark.parametrize("make", [lambda path: None, Path.mkdir])
def test_a_missing_file_and_a_directory_are_one_line_each(tmp_path: Path, make: object) -> None:
    path = tmp_path / "nowhere.jsonl"
    make(path)  # type: ignore[operator]
    with pytest.raises(InputError, match=r"cannot read .*nowhere\.jsonl"):
        list(read_jsonl(path, Verdict))


def test_empty_lines_are_nothing(tmp_path: Path) -> None:
    path = tmp_path / "v.jsonl"
    path.write_bytes(b"\n" + encode_line(verdict("a")) + b"  \n\n" + encode_line(verdict("b")))
    assert [number for number, _ in read_jsonl(path, Verdict)] == [2, 5]


def test_arrange_brings_records_into_order_and_unknown_ones_last(tmp_path: Path) -> None:
    file = written(tmp_path / "v.jsonl", "d", "b", "x", "a", "y")
    file.reorder(["a", "b", "c", "d"])
    assert file.keys_in_order() == ["a", "b", "d", "x", "y"]
    before = file.path.stat()
    file.reorder(["a", "b", "c", "d"])
    assert file.path.stat().st_ino == before.st_ino, "a file that is in order is left alone"
    assert not list(tmp_path.glob("*.tmp"))
    file.append(verdict("c"))
    file.reorder(["a", "b", "c", "d"])
    assert file.keys_in_order() == ["a", "b", "c", "d", "x", "y"]


def test_arrange_gives_the_same_bytes_whatever_the_order_of_arrival(tmp_path: Path) -> None:
    names = [f"t{index}" for index in range(30)]
    contents = set()
    for seed in range(3):
        shuffled = random.Random(seed).sample(names, len(names))
        file = written(tmp_path / f"{seed}.jsonl", *shuffled)
        with file.path.open("ab") as raw:
            raw.write(b'{"torn')
        file.reorder(names)
        contents.add(file.path.read_bytes())
    assert len(contents) == 1


def test_a_full_disk_is_an_error_that_leaves_whole_records_and_resumes(tmp_path: Path) -> None:
    file = written(tmp_path / "v.jsonl", "a", "b")
    size = file.path.stat().st_size
    with file_size_limit(size + 100):
        with pytest.raises(StorageError, match=r"cannot write .*v\.jsonl: ") as caught:
            file.append(verdict("c", reason="x" * 1000))
        assert isinstance(caught.value, OSError)
        assert file.path.stat().st_size == size
        with pytest.raises(StorageError):
            file.append(verdict("c", reason="x" * 1000))
        file.append(verdict("s", reason=""))  # what fits is still written
    file.append(verdict("c", reason="x" * 1000))
    file.close()
    assert file.keys_in_order() == ["a", "b", "s", "c"]


def test_a_full_disk_while_arranging_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    file = written(tmp_path / "v.jsonl", "b", "a")
    before = file.path.read_bytes()
    with file_size_limit(10), pytest.raises(StorageError, match=r"v\.jsonl"):
        file.reorder(["a", "b"])
    assert file.path.read_bytes() == before
    assert not list(tmp_path.glob("*.tmp"))


def test_a_directory_in_the_place_of_the_file_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "v.jsonl").mkdir()
    with pytest.raises(StorageError, match="directory"):
        verdicts(tmp_path / "v.jsonl").append(verdict("a"))
    with pytest.raises(StorageError, match="cannot write"):
        verdicts(tmp_path / "missing" / "v.jsonl").append(verdict("a"))


def test_write_atomically_keeps_the_old_file_when_the_new_one_cannot_be_made(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    write_atomically(path, [b"old"])

    def chunks() -> Iterator[bytes]:
        yield b"new"
        raise OSError(28, "No space left on device")

    with pytest.raises(StorageError, match=r"state\.json: No space left"):
        write_atomically(path, chunks())
    assert path.read_bytes() == b"old"
    assert [one.name for one in tmp_path.iterdir()] == ["state.json"]


def test_half_of_a_surrogate_pair_is_stored_as_a_replacement(tmp_path: Path) -> None:
    """Models write cut escapes (`\\ud83d`); JSON readers make lone surrogates of them, which UTF-8 cannot hold."""
    file = RecordFile(tmp_path / "t.jsonl", Trajectory, lambda one: one.id)
    turns = (Turn(text="a\ud83db \ud83d\ude00"),)
    file.append(Trajectory(id="1", task_id="t", stage="synth", index=0, turns=turns, stop_reason="no_answer"))
    file.close()
    assert [one.turns[0].text for one in file] == ["a\ufffdb \U0001f600"]


@given(st.lists(st.text(st.characters(exclude_categories=[])), max_size=3))
def test_any_text_can_be_stored_and_read(texts: list[str]) -> None:
    lines = [encode_line(verdict("a", text)) for text in texts]
    assert all(line.count(b"\n") == 1 for line in lines)
    for line, text in zip(lines, texts, strict=True):
        read = msgspec.json.decode(line, type=Verdict).reason
        assert read == text or "\ufffd" in read


WRITER = """
import sys
from pathlib import Path
from rewright.core.records import Verdict
from rewright.core.storage import RecordFile

file = RecordFile(Path(sys.argv[1]), Verdict, lambda one: one.trajectory_id)
known = file.keys()
for index in range(100_000):
    name = f"t{index}"
    if name not in known:
        file.append(Verdict(trajectory_id=name, outcome=1.0, reason="x" * (index % 7 * 60_000)))
        sys.stdout.buffer.write(b".")
        sys.stdout.buffer.flush()
"""


def test_a_writer_killed_at_any_moment_loses_nothing_and_writes_nothing_twice(tmp_path: Path) -> None:
    path = tmp_path / "v.jsonl"
    rng = random.Random(0)
    acknowledged = 0
    for _ in range(6):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, bufsize=0)
        assert writer.stdout is not None
        for _ in range(rng.randint(1, 12)):
            acknowledged += len(writer.stdout.read(1))
        os.kill(writer.pid, signal.SIGKILL)
        acknowledged += len(writer.stdout.read())
        writer.wait()
        writer.stdout.close()
        names = verdicts(path).keys_in_order()
        assert names == [f"t{index}" for index in range(len(names))]
        # The record that was being written at the kill may be whole although nobody was told.
        assert acknowledged <= len(names) <= acknowledged + 1
        acknowledged = len(names)
