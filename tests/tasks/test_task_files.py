"""Task files: our own format, the published ones, and one clear line for every mistake in them."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from rewright.core.errors import InputError
from rewright.core.records import Gold, Task, ToolCall, ToolSpec
from rewright.core.registry import known
from rewright.tasks.formats import find_format
from rewright.tasks.loading import load_tasks, save_tasks

SCHEMA: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "find",
        "description": "Find a person's city.",
        "parameters": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]},
    },
}


def record(**changes: Any) -> dict[str, Any]:
    return {
        "id": "a",
        "messages": [{"role": "user", "content": "Where does Ann live?"}],
        "tools": [{"schema": SCHEMA, "source": "def find(name):\n    return 'Rome'\n"}],
        "gold": {"answers": ["Rome"], "calls": [{"name": "find", "arguments": {"name": "Ann"}}]},
        **changes,
    }


def write(path: Path, *records: Any) -> Path:
    path.write_text("".join(json.dumps(each) + "\n" for each in records))
    return path


def test_our_own_format_comes_back_as_it_was_written(tmp_path: Path) -> None:
    task = Task(
        id="a",
        messages=({"role": "user", "content": "Where does Ann live?"},),
        tools=(ToolSpec(SCHEMA, source="def find(name):\n    return 'Rome'\n"),),
        gold=Gold(answers=("Rome",), calls=(ToolCall("find", {"name": "Ann"}),), outputs={"find": ["Rome"]}),
        metadata={"hops": 1},
    )
    save_tasks(tmp_path / "tasks.jsonl", [task])
    assert load_tasks(tmp_path / "tasks.jsonl") == [task]


def test_the_limit_stops_reading_early(tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", record(), record(id="b"), "not a record")
    assert [task.id for task in load_tasks(path, limit=2)] == ["a", "b"]


def test_json_lists_wrapped_lists_and_gzip_are_read(tmp_path: Path) -> None:
    (tmp_path / "list.json").write_text(json.dumps([record()]))
    (tmp_path / "wrapped.json").write_text(json.dumps({"version": 1, "data": [record()]}))
    (tmp_path / "lines.json").write_text(json.dumps(record()) + "\n" + json.dumps(record(id="b")) + "\n")
    with gzip.open(tmp_path / "t.jsonl.gz", "wt") as file:
        file.write(json.dumps(record()))
    assert len(load_tasks(tmp_path / "list.json")) == 1
    assert len(load_tasks(tmp_path / "wrapped.json")) == 1
    assert len(load_tasks(tmp_path / "lines.json")) == 2
    assert len(load_tasks(tmp_path / "t.jsonl.gz")) == 1


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([record(), record()], r"t\.jsonl:2: the id 'a' is already used by .*t\.jsonl:1"),
        ([record(id=3)], r"t\.jsonl:1: Expected `str`, got `int` at `id`"),
        ([record(id="")], r"'id' is empty"),
        (
            [record(messages=[{"role": "user", "content": [{"type": "text", "text": "Where?"}]}])],
            r"t\.jsonl:1: 'messages'\[0\] has content of the type list, expected a text",
        ),
        (
            [record(follow_ups=[{"messages": [{"role": "user", "content": ["Where?"], "tool_calls": [{"id": "c"}]}]}])],
            r"t\.jsonl:1: 'follow_ups'\[0\]\.messages\[0\] has content of the type list, expected a text",
        ),
        ([{"id": "a"}], r"t\.jsonl:1: Object missing required field `messages`"),
        ([record(messages=[])], r"'messages' is empty"),
        ([record(messages=[{"content": "x"}])], r"'messages'\[0\] has no role"),
        ([record(jugde="math")], r"unknown key 'jugde'; did you mean 'judge'\?"),
        ([record(question="x")], r"unknown key 'question'; expected one of version, id, messages, "),
        ([record(answer="x")], r"unknown key 'answer'; expected one of version, id, messages, "),
        ([record(gold={"anwers": ["x"]})], r"unknown key 'gold\.anwers'; did you mean 'answers'\?"),
        ([record(tools=[{"scheme": {}}])], r"unknown key 'tools\[0\]\.scheme'; did you mean 'schema'\?"),
        ([record(tools=[{"schema": {}}])], r"'tools'\[0\]\.schema is not a function schema"),
        ([record(gold={"answers": "Rome"})], r"Expected `array.*`, got `str` at `gold\.answers`"),
        ([record(gold={"calls": [{"name": "fnd", "arguments": {}}]})], r"gold call 0 is to the unknown tool 'fnd'"),
        (
            [record(gold={"calls": [{"name": "find", "arguments": {"name": 3}}]})],
            r"gold call 0 to 'find': argument 'name': 3 is not of type 'string'",
        ),
        (
            [record(gold={"calls": [{"name": "find", "arguments": {}}]})],
            r"gold call 0 to 'find': 'name' is a required property",
        ),
        (
            [record(gold={"calls": [{"name": "find", "arguments": {"name": "x", "age": 3}}]})],
            r"unknown argument 'age'; the schema has name",
        ),
        ([record(gold={"outputs": {"other": ["x"]}})], r"gold outputs are expected of the unknown tool 'other'"),
        ([record(tools=[{"schema": SCHEMA, "source": ""}] * 2)], r"the tool 'find' is defined twice"),
        ([[1, 2]], r"t\.jsonl:1: is a list, expected an object"),
        ([], r"t\.jsonl: has no rows"),
    ],
)
def test_each_mistake_in_a_record_is_one_line(tmp_path: Path, records: list[Any], message: str) -> None:
    path = write(tmp_path / "t.jsonl", *records)
    with pytest.raises(InputError, match=message) as caught:
        load_tasks(path)
    assert "\n" not in str(caught.value)


def test_each_mistake_with_a_file_is_one_line(tmp_path: Path) -> None:
    for name, content, message in [
        ("latin.jsonl", '{"id": "caf\xe9"}'.encode("latin-1"), r"latin\.jsonl:1: not UTF-8"),
        ("broken.jsonl", b'{"id": ', r"broken\.jsonl:1: not JSON"),
        ("deep.jsonl", b"[" * 100_000, r"deep\.jsonl:1: JSON nested too deeply"),
        ("broken.json", b"[1, ", r"broken\.json: not JSON"),
        ("no.jsonl.gz", b"plain", r"not a whole gzip file"),
        ("t.jsonl.zst", b"", r"unknown kind of file.*decompress it first"),
        ("t.csv", b"", r"unknown kind of file, expected \.jsonl"),
        ("bad.parquet", b"PAR1 not", r"bad\.parquet: not a parquet file"),
        ("empty.parquet", b"", r"empty\.parquet: not a parquet file"),
        ("empty.json", b" ", r"empty\.json: has no rows"),
    ]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=message) as caught:
            load_tasks(tmp_path / name)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="is a directory, expected"):
        load_tasks(tmp_path)
    with pytest.raises(InputError, match="no such file"):
        load_tasks(tmp_path / "none.jsonl")


def test_flags_are_checked(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"unknown task format 'frtl': did you mean 'ftrl'\?"):
        load_tasks(tmp_path / "x.jsonl", "frtl")
    with pytest.raises(InputError, match="limit is 0"):
        load_tasks(tmp_path / "x.jsonl", limit=0)
    with pytest.raises(InputError, match=r"expected hf:<owner>/<name>"):
        load_tasks("hf:", "ftrl")


def test_an_unchecked_load_leaves_the_findings_to_validation(tmp_path: Path) -> None:
    assert len(load_tasks(write(tmp_path / "t.jsonl", record(), record()), check=False)) == 2


def test_every_format_is_an_object_that_says_where_its_tasks_come_from() -> None:
    kinds = [type(find_format(name)).__name__ for name in known("task_format")]
    assert {kind: kinds.count(kind) for kind in kinds} == {"RowFormat": 21, "PackageFormat": 6, "WorldFormat": 2}
