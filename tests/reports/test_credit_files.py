"""Turn credit for stored trajectories: our files, chat logs, TRL tables; gold files; mistakes."""

import datetime
import json
from decimal import Decimal

import msgspec
import pytest

from rewright.core.errors import InputError
from rewright.core.records import Gold, Task, ToolCall, Trajectory, Turn, Verdict
from rewright.credit import advantages, turn_rewards
from rewright.credit.settings import TurnCredit
from rewright.reports.credit_table import credit_as_json
from rewright.reports.stored_credit import Stored, credit, read_gold, read_stored

ADA, BEN = {"name": "lookup", "arguments": {"name": "Ada"}}, {"name": "lookup", "arguments": {"name": "Ben"}}
QUESTION = {"role": "user", "content": "How old together?"}


def spoken(*turns, text=False):
    """Assistant messages with tool messages between them; arguments as JSON text (OpenAI) or dicts (Hugging Face)."""
    messages = []
    for calls in turns:
        functions = [
            {**call, "arguments": json.dumps(call["arguments"]) if text else call["arguments"]} for call in calls
        ]
        message = {"role": "assistant", "content": "" if calls else "77"}
        if calls:
            message["tool_calls"] = [{"id": "1", "type": "function", "function": function} for function in functions]
        messages.append(message)
        messages += [{"role": "tool", "tool_call_id": "1", "content": json.dumps(ADA)} for _ in calls]
    return messages


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize("text", [True, False])
def test_chat_logs_with_gold_calls_in_another_file(tmp_path, text):
    logs = write_lines(
        tmp_path / "logs.jsonl",
        [
            {"id": "a", "task_id": "q", "messages": [QUESTION, *spoken([ADA], [BEN], [], text=text)], "reward": 1.0},
            {"id": "b", "task_id": "q", "messages": [QUESTION, *spoken([ADA, ADA], [], text=text)], "reward": 0},
        ],
    )
    gold = write_lines(tmp_path / "gold.jsonl", [{"id": "q", "calls": [ADA, BEN]}])
    found = credit(read_stored(logs), read_gold(gold))
    rewards = [turn_rewards([[ADA], [BEN], []], [ADA, BEN], outcome=1.0), turn_rewards([[ADA, ADA], []], [ADA, BEN])]
    assert [row.rewards.tolist() for row in found] == [row.tolist() for row in rewards]
    expected = advantages([*rewards], [0, 0])
    assert [row.advantages.tolist() for row in found] == [row.tolist() for row in expected]
    assert [row.stored.id for row in found] == ["a", "b"]


def test_gold_by_prompt_in_the_row_or_one_list_for_all(tmp_path):
    rows = [{"messages": [QUESTION, *spoken([ADA], [])]}]
    plain = write_lines(tmp_path / "logs.jsonl", rows)
    own = write_lines(tmp_path / "own.jsonl", [{**rows[0], "gold_calls": json.dumps([ADA])}])
    by_prompt = write_lines(tmp_path / "prompt.jsonl", [{"prompt": [QUESTION], "gold_calls": [ADA]}])
    for_all = tmp_path / "gold.json"
    for_all.write_text(json.dumps([ADA]), encoding="utf-8")
    for logs, gold in ((plain, read_gold(by_prompt)), (plain, read_gold(for_all)), (own, None)):
        (found,) = credit(read_stored(logs), gold)
        assert found.rewards.tolist() == [1.0, 0.0]


def test_trl_completions_tables_are_read_with_their_nulls(tmp_path):
    """In a table every call has every argument of every other: null stands for absent."""
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    add = {"name": "add", "arguments": {"a": 1, "b": 2}}
    rows = [
        {
            "step": 3,
            "prompt": [QUESTION],
            "completion": spoken([ADA], []),
            "right": 1.0,
            "brief": 0.5,
            "advantage": 9.0,
        },
        {
            "step": 3,
            "prompt": [QUESTION],
            "completion": spoken([add], []),
            "right": 0.0,
            "brief": 0.5,
            "advantage": -9.0,
        },
        {"step": 4, "prompt": [QUESTION], "completion": spoken([]), "right": 0.0, "brief": 0.0, "advantage": 0},
    ]
    path = tmp_path / "completions_00003.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    gold = write_lines(tmp_path / "gold.jsonl", [{"prompt": QUESTION["content"], "calls": [ADA, add]}])
    found = credit(read_stored(path, outcome=["right", "brief"]), read_gold(gold))
    assert [row.rewards.tolist() for row in found] == [[1.0, 1.5], [1.0, 0.5], [0.0]]
    assert [row.stored.group[:6] for row in found] == ["step 3", "step 3", "step 4"]
    found = credit(read_stored(path, outcome="right"), read_gold(gold))
    assert [row.stored.outcome for row in found] == [1.0, 0.0, 0.0]


def run_directory(tmp_path):
    calls = tuple(ToolCall(**call) for call in (ADA, BEN))
    task = Task(id="q", messages=(QUESTION,), gold=Gold(calls=calls))
    trajectory = Trajectory(
        id="q-0", task_id="q", stage="rl", index=0, stop_reason="answered",
        turns=(Turn("one", calls=calls[:1]), Turn("two", calls=(calls[1], ToolCall("", {}, error="cut"))), Turn("77")),
    )  # fmt: skip
    verdict = Verdict(trajectory_id="q-0", outcome=1.0, reason="right", metrics={"f1": 0.25})
    for name, record in (("tasks", task), ("trajectories", trajectory), ("verdicts", verdict)):
        (tmp_path / f"{name}.jsonl").write_bytes(msgspec.json.encode(record) + b"\n")
    return tmp_path


def test_a_run_directory_brings_gold_and_outcomes_along(tmp_path):
    folder = run_directory(tmp_path)
    for path in (folder, folder / "trajectories.jsonl"):
        (found,) = credit(read_stored(path))
        assert found.rewards.tolist() == [1.0, 0.5, 1.0]
        assert found.stored.texts == ["one", "two", "77"]
        assert found.stored.prompt == QUESTION["content"]
    (found,) = credit(read_stored(folder, outcome="f1"), settings=TurnCredit(aggregate="sum"))
    assert found.rewards.tolist() == [1.0, 1.0, 0.25]
    with pytest.raises(InputError, match="no metric 'bleu': it has f1"):
        credit(read_stored(folder, outcome="bleu"))


def test_the_json_names_each_call_s_turn_reward_and_partner(tmp_path):
    (found,) = credit(read_stored(run_directory(tmp_path)))
    shown = json.loads(json.dumps(credit_as_json(found)))
    assert [(call["turn"], call["name"], call["reward"], call["gold"]) for call in shown["calls"]] == [
        (0, "lookup", 1.0, 0), (1, "lookup", 1.0, 1), (1, "", 0.0, None),
    ]  # fmt: skip
    assert shown["gold"] == [ADA, BEN]
    assert (shown["reward"], shown["outcome"], shown["turn_rewards"]) == (2.5, 1.0, [1.0, 0.5, 1.0])


def test_the_json_is_json_whatever_a_table_holds(tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    day = datetime.date(2026, 1, 2)
    odd = {"name": "lookup", "arguments": {"day": day, "at": [float("nan"), 1.5], "cost": Decimal("1.5"), "ok": True}}
    table = tmp_path / "logs.parquet"
    messages = [QUESTION, {"role": "assistant", "tool_calls": [{"function": odd}]}]
    pq.write_table(pa.Table.from_pylist([{"messages": messages, "gold_calls": json.dumps([ADA])}]), table)
    (found,) = credit(read_stored(table))
    (call,) = json.loads(json.dumps(credit_as_json(found), allow_nan=False))["calls"]
    assert call["arguments"] == {"day": "2026-01-02", "at": [None, 1.5], "cost": "1.5", "ok": True}


def test_what_tools_and_users_write_is_never_a_call(tmp_path):
    trap = {"role": "tool", "content": "36", "tool_calls": [{"type": "function", "function": BEN}]}
    user = {"role": "user", "content": "go on", "tool_calls": [{"type": "function", "function": BEN}]}
    first, tool, last = spoken([ADA], [])
    row = {"messages": [QUESTION, first, {**tool, **trap}, user, last], "gold_calls": json.dumps([ADA, BEN])}
    (found,) = credit(read_stored(write_lines(tmp_path / "logs.jsonl", [row])))
    assert found.rewards.tolist() == [1.0, 0.0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"messages": [', r"logs.jsonl:1: not JSON"),
        ('{"text": "hi"}', r"logs.jsonl:1: not a log that is known: it has the keys 'text'; expected one of"),
        ("", "has no rows"),
        ('{"messages": [], "reward": "good"}', "the outcome 'good' is not a number"),
        ('{"messages": [], "gold_calls": "lookup()"}', "logs.jsonl:1: gold_calls is not JSON"),
        ('{"messages": []}', "no trajectory has gold calls: give a file of them with --gold"),
    ],
)
def test_a_bad_file_is_one_clear_line(tmp_path, content, message):
    path = tmp_path / "logs.jsonl"
    path.write_text(content + "\n" if content else "", encoding="utf-8")
    with pytest.raises(InputError, match=message):
        credit(read_stored(path))


def test_a_gold_file_that_does_not_fit_is_explained(tmp_path):
    logs = write_lines(tmp_path / "logs.jsonl", [{"task_id": "q1", "messages": [QUESTION, *spoken([])]}])
    gold = write_lines(tmp_path / "gold.jsonl", [{"id": "other", "calls": [ADA]}])
    with pytest.raises(InputError, match="tasks are 'q1', …, the gold file's 'other', …"):
        credit(read_stored(logs), read_gold(gold))
    with pytest.raises(InputError, match="none of its 1 rows has gold calls"):
        read_gold(write_lines(tmp_path / "empty.jsonl", [{"id": "q1"}]))
    with pytest.raises(InputError, match="no 'id', 'task_id' or 'prompt'"):
        read_gold(write_lines(tmp_path / "whose.jsonl", [{"calls": [ADA]}]))
    with pytest.raises(InputError, match="no such file"):
        read_gold(tmp_path / "missing.jsonl")
    with pytest.raises(InputError, match=r"no trajectories\.jsonl"):
        list(read_stored(tmp_path))


def test_a_call_is_shown_as_it_is_read_for_matching():
    """A data frame has NaN where a column is absent, here the name of a call that stands under `function`."""
    call = {
        "name": float("nan"),
        "function": {"name": "Lookup", "arguments": float("nan"), "parameters": {"name": "Ada"}},
    }
    stored = Stored("a", "q", [[call]], [""], golds=[ADA], outcome=1.0)
    (found,) = credit([stored])
    shown = credit_as_json(found)
    assert shown["calls"] == [{"turn": 0, "name": "Lookup", "arguments": {"name": "Ada"}, "reward": 1.0, "gold": 0}]
