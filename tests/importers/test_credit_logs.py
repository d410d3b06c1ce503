"""`rewright credit` never prints numbers for what it did not understand: rows, calls, outcomes, gold calls."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rewright.cli import main as cli

ADA = {"name": "lookup", "arguments": {"name": "Ada"}}
QUESTION = {"role": "user", "content": "How old is Ada?"}
ANSWER = {"role": "assistant", "content": "36"}
WRITTEN = '<tool_call>\n{"name": "lookup", "arguments": {"name": "Ada"}}\n</tool_call>'


def said(*calls: Any, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": None, "tool_calls": list(calls), **more}


FUNCTION = {"id": "1", "type": "function", "function": {**ADA, "arguments": '{"name": "Ada"}'}}
GOOD = {"task_id": "q", "messages": [QUESTION, said(FUNCTION), ANSWER]}


@pytest.fixture
def credit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run `rewright credit logs.jsonl --gold gold.json`: exit code, standard output, lines of standard error."""
    monkeypatch.chdir(tmp_path)

    def run(rows: list[Any], *options: str, gold: Any = (ADA,)) -> tuple[int, str, list[str]]:
        Path("logs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        Path("gold.json").write_text(json.dumps(gold), encoding="utf-8")
        given = ["--gold", "gold.json"] if gold is not None else []
        monkeypatch.setattr("sys.argv", ["rewright", "credit", "logs.jsonl", *given, *options])
        with pytest.raises(SystemExit) as end:
            cli.main()
        shown = capsys.readouterr()
        return int(end.value.code or 0), shown.out, shown.err.splitlines()

    return run


def turn_rewards(output: str) -> list[list[float]]:
    return [json.loads(line)["turn_rewards"] for line in output.splitlines()]


def messages(*spoken: Any) -> dict[str, Any]:
    return {"task_id": "q", "messages": [QUESTION, *spoken]}


@pytest.mark.parametrize("beside_a_good_row", [True, False])
@pytest.mark.parametrize(
    ("row", "message"),
    [
        # conventions that contradict each other, roles of none
        (messages({"from": "gpt", "value": "36"}), "message 0 is an object with 'role', 'content', …: expected from"),
        (messages({"role": "tool_call", "content": 3}, ANSWER), "message 1, a tool_call, has the content 3"),
        (messages({"role": "bot", "content": "36"}), "message 1 has the role 'bot'"),
        (messages({"role": "model", "content": "36"}, {"role": "tool_call", "content": "{}"}), "is ambiguous: message"),
        ({**messages(ANSWER), "conversations": [ANSWER]}, "is ambiguous: 'messages' and 'conversations' hold messages"),
        ({"conversations": [{"from": "narrator", "value": "36"}]}, "message 0 is from 'narrator'"),
        (
            {"chosen": [], "rejected": []},
            "is no log of one attempt: it has the keys 'chosen', 'rejected' (it looks like a pair of a preference set",
        ),
        (messages("36"), "message 1 is '36': expected an object with role and content"),
        (messages(), "no message is an assistant's: its roles are 'user'"),
        ({"task_id": "q", "prompt": [QUESTION], "completion": [QUESTION]}, "no message is an assistant's"),
        # our own shape, with the calls under another key
        (
            {
                "id": "a",
                "task_id": "q",
                "stage": "synth",
                "index": 0,
                "stop_reason": "no_answer",
                "turns": [{"text": "", "tool_calls": [ADA]}],
            },
            "unknown key 'turns.0.tool_calls': expected one of text",
        ),
        # parts, other places, other shapes
        (
            messages({"role": "assistant", "content": [{"type": "server_tool_use", "name": "lookup", "input": {}}]}),
            "message 1 of the assistant has a part of type 'server_tool_use'",
        ),
        (messages({**ANSWER, "toolCalls": [ADA]}), "message 1 of the assistant has calls in 'toolCalls'"),
        (messages(said({"tool": "lookup", "args": {}})), "a call of turn 0 is {'tool': 'lookup', 'args': {}}"),
        (messages(said({"name": "lookup", "input": {"name": "Ada"}})), "a call of turn 0 is {'name': 'lookup', 'input"),
        (messages(said({"function": "lookup", "arguments": "{}"})), "a call of turn 0 is {'function': 'lookup'"),
        (messages({"role": "assistant", "content": "", "tool_calls": "lookup"}), "a call of turn 0 is 'lookup'"),
        ({"prompt": [{"role": "user", "content": ""}], "completion": [ANSWER]}, "attempts at one task"),
    ],
)
def test_a_row_that_is_not_understood_is_an_error(
    credit: Any, row: dict[str, Any], message: str, beside_a_good_row: bool
) -> None:
    good = {**row, "turns": []} if "turns" in row else GOOD
    rows = [good, row] if beside_a_good_row else [row]
    code, output, (line,) = credit(rows)
    assert (code, output) == (2, "")
    assert line.startswith(f"error: logs.jsonl:{len(rows)}: ")
    assert message in line


@pytest.mark.parametrize(
    ("spoken", "message"),
    [
        ([ANSWER], "no call was read, though there are gold calls: none of 2 assistant messages has tool_calls; logs."),
        ([{**ANSWER, "content": "[TOOL_CALLS][]"}], "calls seem to stand in the text ([TOOL_CALLS]); logs.jsonl:1 has"),
        ([{**ANSWER, "content": "<search>Ada</search>"}], "calls seem to stand in the text (<search>)"),
        ([said({"function": {"name": "lookup", "arguments": "{"}})], "no well-formed call was read, though there are"),
    ],
)
def test_a_file_without_a_readable_call_is_an_error(credit: Any, spoken: list[Any], message: str) -> None:
    code, output, (line,) = credit([messages(*spoken), messages(*spoken)])
    assert (code, output) == (2, "")
    assert message in line
    assert "has the roles user, assistant and the keys task_id, messages" in line


def test_a_model_s_own_mistakes_are_zeros(credit: Any) -> None:
    """Beside a call that was read: no call at all, broken JSON, a call tag without a call in it."""
    cut = said({"id": "1", "type": "function", "function": {"name": "lookup", "arguments": '{"name": '}})
    rows = [GOOD, messages(ANSWER), messages(cut, ANSWER), messages({**ANSWER, "content": "<tool_call>{</tool_call>"})]
    code, output, warnings = credit(rows, "--json")
    assert code == 0
    assert turn_rewards(output) == [[1.0, 0.0], [0.0], [0.0, 0.0], [0.0]]
    assert warnings == [
        "warning: no trajectory has an outcome: turns are rewarded for calls only; judging gives outcomes: rewright "
        "import logs.jsonl --run runs/logs",
        "warning: 1 of 4 trajectories has no call that was read, but <tool_call> in the text (the first is 'row 3'): "
        "their calls earn 0",
    ]
    code, output, _ = credit(
        [messages(ANSWER)], "--json", gold=[{"id": "q", "calls": []}]
    )  # the gold calls say that none is needed
    assert (code, turn_rewards(output)) == (0, [[0.0]])


def test_calls_as_json_text_or_alone_are_read(credit: Any) -> None:
    rows = [messages({**ANSWER, "tool_calls": given}) for given in (json.dumps([ADA]), ADA, FUNCTION, [FUNCTION])]
    code, output, _ = credit(rows, "--json")
    assert (code, turn_rewards(output)) == (0, [[1.0]] * 4)


def test_the_outcome_is_the_column_reward_or_asked_for(credit: Any) -> None:
    def outcomes(columns: dict[str, Any], *options: str) -> tuple[int, list[Any], list[str]]:
        code, output, errors = credit([{**GOOD, **columns}, GOOD], *options, "--json")
        return code, [json.loads(line)["outcome"] for line in output.splitlines()], errors

    logged = {"example_id": 1, "reward": 1.0, "num_turns": 3, "score": 77}
    code, found, (warning,) = outcomes(logged)
    assert (code, found) == (0, [1.0, None])
    assert warning.startswith("warning: 1 of 2 trajectories has no outcome (the first is 'row 1')")
    assert outcomes(logged, "--outcome", "score")[:2] == (0, [77.0, None])
    assert outcomes(logged, "--outcome", "score", "--outcome", "reward")[:2] == (0, [78.0, None])
    assert outcomes({"id": 3, "step": 5, "advantage": 0.5})[:2] == (0, [None, None])  # nobody's outcome
    for columns, named in (
        ({"score": 1.0}, "'score'"),
        ({"right": True, "brief": 0.5, "step": 3, "example_id": 1}, "'right', 'brief'"),
    ):
        code, found, (line,) = outcomes(columns)
        assert (code, found) == (2, [])
        assert f"logs.jsonl: which column is the outcome? There is no 'reward', but {named}: name it with" in line
        assert outcomes(columns, "--outcome", "none")[:2] == (0, [None, None])
    code, _, (line,) = outcomes(logged, "--outcome", "reward", "--outcome", "bonus")
    assert (code, "no row has the column 'bonus' of the outcome" in line) == (2, True)
    assert "the outcome 'good' is not a number" in outcomes({"reward": "good"})[2][0]


def test_what_was_not_compared_or_not_measured_is_said(credit: Any) -> None:
    rows = [{**GOOD, "task_id": key, "reward": 1} for key in ("a", "b", "b")]
    rows[0]["gold_calls"] = [ADA]
    code, _, warnings = credit(rows, gold=None)
    assert code == 0
    assert warnings == [
        "warning: 1 of 2 groups has one trajectory only (the first is 'a'): its advantages compare it with nothing",
        "warning: 2 of 3 trajectories have no gold calls (the first is 'row 1'): their calls earn 0",
    ]
    assert credit([{**GOOD, "reward": 1}, {**GOOD, "reward": 0}])[2] == []


UNITS = {"lookup": {"name": ["Ada"], "unit": ["years", ""]}}


@pytest.mark.parametrize(
    ("gold", "options"),
    [
        ([UNITS], []),
        ([{"name": "lookup", "allowed": UNITS["lookup"]}], []),
        ([{"name": "lookup", "arguments": UNITS["lookup"]}], ["--allowed-values"]),
        ([{"id": "q", "ground_truth": [UNITS]}], []),
        ([{"id": "q", "ground_truth": json.dumps([UNITS])}], []),
        ([{"id": "q", "calls": [{"name": "lookup", "arguments": UNITS["lookup"]}]}], ["--allowed-values"]),
        ([{"prompt": [QUESTION], "extra_info": {"gold_calls": json.dumps([ADA])}}], []),
    ],
)
def test_gold_calls_with_allowed_values_are_matched_as_such(credit: Any, gold: Any, options: list[str]) -> None:
    code, output, _ = credit([GOOD], "--json", *options, gold=gold)
    assert (code, turn_rewards(output)) == (0, [[1.0, 0.0]])
    (call,) = json.loads(output)["gold"]
    assert call == {"name": "lookup", "allowed": UNITS["lookup"]} or call == ADA
    if options:
        code, output, warnings = credit([GOOD], "--json", gold=gold)
        assert turn_rewards(output) == [[pytest.approx((1 + 1 / 2) / 4), 0.0]]
        assert (
            'some with "" in it: if these are the allowed values (as in BFCL), say so with --allowed-values'
            in (warnings[-1])
        )


def test_a_picture_of_allowed_values_names_them(credit: Any) -> None:
    assert credit([GOOD], "--picture", "one.svg", gold=[UNITS])[0] == 0
    picture = Path("one.svg").read_text(encoding="utf-8")
    assert "years" in picture
    assert "malformed" not in picture


def test_the_key_ground_truth_is_read_or_named(credit: Any) -> None:
    for held in ([ADA], json.dumps([ADA]), [{"name": "lookup", "parameters": {"name": "Ada"}}], [UNITS]):
        code, output, _ = credit([{**GOOD, "ground_truth": held}], "--json", gold=None)
        assert (code, turn_rewards(output)) == (0, [[1.0, 0.0]])
    code, _, (line,) = credit([{**GOOD, "ground_truth": "36"}], gold=None)
    assert code == 2
    assert line.endswith("has the roles user, assistant and the keys task_id, messages, ground_truth")
    assert credit([{**GOOD, "ground_truth": "36"}])[0] == 0  # an answer, beside gold calls from elsewhere
    code, _, (line,) = credit([{**GOOD, "ground_truth": [{"tool": "lookup"}]}])
    assert (code, "logs.jsonl:1: ground_truth: call 0 is {'tool': 'lookup'}" in line) == (2, True)
    for held in ("36", [["lookup(name='Ada')"]]):
        code, _, (line,) = credit([GOOD], gold=[{"id": "q", "ground_truth": held}])
        assert (code, "gold.json: row 0: ground_truth" in line) == (2, True)


def test_gold_calls_that_contradict_each_other_are_an_error(credit: Any) -> None:
    other = {"name": "lookup", "arguments": {"name": "Ben"}}
    code, _, (line,) = credit([GOOD], gold=[{"id": "q", "calls": [ADA]}, {"id": "q", "calls": [other]}])
    assert (code, "gold.json: row 1: 'q' has other gold calls in an earlier row" in line) == (2, True)
    rows = [{"prompt": [QUESTION], "calls": [ADA]}, {"prompt": [QUESTION], "calls": [other]}]
    assert "the prompt 'How old is Ada?' has other gold calls" in credit([GOOD], gold=rows)[2][0]
