"""`rewright import` makes a run of a log, on which judge, score, repair, credit, build, view and export work."""

from __future__ import annotations

import json
from pathlib import Path

from aiohttp import web

from rewright.core.records import Gold, Task
from rewright.pipeline.run_directory import Run
from rewright.tasks.loading import save_tasks
from support.logs import (
    ANSWER,
    CALL,
    OPENAI,
    QUESTION,
    Rewright,
    gold_file,
    imported,
    imported_again,
    write,
)
from support.served import served


def test_prefixes_of_names_are_said_and_removed(rewright: Rewright) -> None:
    call = {"id": "1", "type": "function", "function": {**CALL, "name": "functions.get_weather"}}
    file = write("logs.jsonl", {"messages": [QUESTION, {**OPENAI[1], "tool_calls": [call]}, *OPENAI[2:]]})
    code, output, warnings = rewright("credit", file, "--gold", gold_file(), "--json")
    assert (code, json.loads(output)["turn_rewards"]) == (0, [0.0, 0.0])
    assert any("gold calls to 'get_weather'; --strip-prefix functions. makes them equal" in line for line in warnings)
    code, output, warnings = rewright("credit", file, "--gold", gold_file(), "--json", "--strip-prefix", "functions.")
    assert (code, json.loads(output)["turn_rewards"]) == (0, [1.0, 0.0])
    assert not any("no call has the name" in line for line in warnings)
    (task,), (one,) = imported(rewright, file, "--strip-prefix", "functions.")
    assert (task.tools[0].name, one.calls[0].name) == ("get_weather", "get_weather")


def test_known_tasks_are_found_by_id_or_question_and_others_are_made(rewright: Rewright) -> None:
    spec = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {}}}}
    source = "def get_weather(city):\n    return '21'"
    known = [
        Task(id="paris", messages=(QUESTION,), gold=Gold(answers=("21",)), tools=()),
        Task(id="rome", messages=({"role": "user", "content": "And Rome?"},), gold=Gold(answers=("22",))),
    ]
    save_tasks(Path("tasks.jsonl"), known)
    tasks = [json.loads(line) for line in Path("tasks.jsonl").read_text().splitlines()]
    tasks[0]["tools"] = [{"schema": spec}]
    tasks[1]["tools"] = [{"schema": spec, "source": source}]
    write("tasks.jsonl", *tasks)
    other = [{"role": "user", "content": "And Oslo?"}, *OPENAI[1:]]
    rows = [{"messages": OPENAI}, {"task_id": "rome", "messages": OPENAI}, {"messages": other, "answer": 21}]
    code, _, notes = rewright("import", write("logs.jsonl", *rows), "--run", "run", "tasks=tasks.jsonl")
    assert code == 0
    assert "note: tasks made from the log: 1 (known tasks: 2); their tools replay the log's results" in notes
    assert any("neither source nor target, and replay the log's results: 1" in note for note in notes)
    run = Run.open(Path("run"))
    first, second, made = run.tasks
    assert [task.tools[0].kind for task in (first, second, made)] == ["recorded", "function", "recorded"]
    assert second.tools[0].source == source
    assert [one.task_id for one in run.trajectories] == ["paris", "rome", made.id]
    assert made.gold.answers == ("21",)
    assert rewright("judge", "run")[0] == 0
    assert [verdict.outcome for verdict in Run.open(Path("run")).verdicts] == [1.0, 0.0, 1.0]


def test_scores_of_turns_that_an_import_leaves_out_are_said(rewright: Rewright) -> None:
    columns: list[dict[str, object]] = [
        {"scores": [0.5, 1.0]},
        {"turn_scores": "[0, 0.5, 1]"},
        {"scores": {"f1": 1}},
        {},
    ]
    file = write("logs.jsonl", *({"messages": OPENAI, "answer": "21", **column} for column in columns))
    code, _, notes = rewright("import", file, "--run", "run")
    said = "scores of turns, which a trajectory cannot hold, are left out of 2 trajectories"
    assert (code, sum(said in note for note in notes)) == (0, 1), notes
    code, output, _ = rewright("credit", file, "--signal", "score", "--json")
    assert [json.loads(line)["turn_rewards"] for line in output.splitlines()][:2] == [[None, 0.5], [0.5, 0.5]]
    code, _, notes = rewright("import", write("plain.jsonl", {"messages": OPENAI, "answer": "21"}), "--run", "other")
    assert code == 0 and not any("scores of turns" in note for note in notes)


def test_gold_of_another_file_and_outcomes_of_the_log_judge(rewright: Rewright) -> None:
    rows = [{"id": name, "task_id": "q", "messages": [*OPENAI[:3], {**ANSWER, "content": text}], "reward": reward}
            for name, text, reward in (("a", "21 degrees", 1), ("b", "20", -1))]  # fmt: skip
    tasks, _ = imported(rewright, write("logs.jsonl", *rows))
    assert (tasks[0].judge, tasks[0].metadata["right_answers"]) == ("logged", ["21 degrees"])
    assert rewright("judge", "run")[0] == 0
    assert [verdict.outcome for verdict in Run.open(Path("run")).verdicts] == [1.0, 0.0]
    gold = write("gold.jsonl", {"question": QUESTION["content"], "answer": "20", "gold_calls": [CALL]})
    code, _, _ = rewright("import", "logs.jsonl", "--run", "second", "--gold", gold)
    (task,) = Run.open(Path("second")).tasks
    assert (code, task.gold.answers, [call.name for call in task.gold.calls or ()]) == (0, ("20",), ["get_weather"])
    code, _, notes = rewright("import", write("bare.jsonl", {"messages": OPENAI}), "--run", "third")
    assert code == 0
    assert any(
        "no gold answer and no outcome for 1 of 1 tasks, so that rewright judge cannot" in note for note in notes
    )
    code, _, lines = rewright("judge", "third")
    assert (code, "needs gold.answers, and the task has none" in lines[-1]) == (2, True)


def _repairer() -> web.Application:
    """An OpenAI-compatible server that looks up what it is asked about, and answers with what it was told."""

    async def reply(request: web.Request) -> web.Response:
        if request.method == "GET":
            return web.json_response({"object": "list", "data": [{"id": "m", "object": "model"}]})
        body = await request.json()
        told = [message["content"] for message in body["messages"] if message["role"] == "tool"]
        asked = next(message["content"] for message in body["messages"] if message["role"] == "user")
        city = "Oslo" if asked.startswith("And Rome?") else "Paris"
        call = json.dumps({"name": "get_weather", "arguments": {"city": city}})
        said = f"<think>So it is.</think><answer>{'22' if city == 'Oslo' else told[0]}</answer>" if told else ""
        message = {"role": "assistant", "content": said or f"<think>I look.</think>\n<tool_call>\n{call}\n</tool_call>"}
        usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        return web.json_response({"id": "1", "model": "m", "choices": [choice], "usage": usage})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", reply)
    return app


def test_logs_are_judged_repaired_credited_built_and_viewed(rewright: Rewright) -> None:
    """A repair that repeats recorded calls is accepted; one that needs another call says so."""
    wrong = {**ANSWER, "content": "It is 20."}
    rome = [{"role": "user", "content": "And Rome?"}, *OPENAI[1:3], wrong]
    rows = [
        {"messages": [*OPENAI[:3], wrong], "answer": "21", "gold_calls": [CALL]},
        {"messages": rome, "answer": "22"},
        {"messages": OPENAI, "answer": "21"},
    ]
    with served(_repairer) as url:
        changes = [
            "dialect=hermes",
            "model.engine=openai",
            f"model.base_url={url}/v1",
            "model.path=m",
            "model.mode=chat",
        ]
        changes += ["repair.attempts=1", "quality.all_high=0", "repair.wrong_answer_threshold=0"]
        assert rewright("import", write("logs.jsonl", *rows), *changes, "--run", "run")[0] == 0
        for verb in ("judge", "score", "repair", "build"):
            assert rewright(verb, "run")[0] == 0
    run = Run.open(Path("run"))
    first, second = run.repairs
    assert first.accepted, first.reason
    repaired = next(one for one in run.trajectories if one.id == first.repaired_id)
    assert [result.content for result in repaired.results] == ["21"]
    assert (second.accepted, second.reason) == (
        False,
        'needs a call that cannot be run and of which the log has no result: get_weather {"city": "Oslo"}',
    )
    lost = next(one for one in run.trajectories if one.id == second.repaired_id)
    assert 'recorded: get_weather {"city": "Paris"}' in lost.results[0].content
    code, output, _ = rewright("credit", "run", "--json")
    assert code == 0
    assert [json.loads(line)["outcome"] for line in output.splitlines()][:3] == [0.0, 1.0, 0.0]
    assert (rewright("view", "run", "--static", "page.html")[0], rewright("export", "run", "out")[0]) == (0, 0)


def test_gold_in_the_form_of_our_tasks_is_read_from_a_row(rewright: Rewright) -> None:
    gold = {"answers": ["21"], "calls": [CALL]}
    (task,), _ = imported(rewright, write("logs.jsonl", {"messages": OPENAI, "gold": gold}))
    assert (task.gold.answers, [call.name for call in task.gold.calls or ()]) == (("21",), ["get_weather"])
    code, output, _ = rewright("credit", "logs.jsonl", "--json")
    assert (code, json.loads(output)["turn_rewards"]) == (0, [1.0, 0.0])
    (task,), _ = imported_again(rewright, [{"messages": OPENAI, "gold": "21"}])
    assert (task.gold.answers, task.gold.calls) == (("21",), None)


def test_a_run_that_exists_is_named_and_settings_are_changed_in_its_recipe(rewright: Rewright) -> None:
    imported(rewright, write("logs.jsonl", {"messages": OPENAI, "answer": "21"}))
    code, _, errors = rewright("import", "logs.jsonl", "--run", "run")
    assert code == 2
    assert errors[-1].endswith("choose another --run, or continue it: rewright run run --resume")
    code, _, errors = rewright("repair", "run", "model.path=m")
    assert (code, errors[-1].endswith("the settings of a run are in its recipe.yaml; change them there")) == (2, True)
    assert rewright("judge", "run")[0] == 0
    _, output, _ = rewright("report", "run", "--json")
    assert json.loads(output)["costs"] == {}, "the import generated nothing"


def test_attempts_at_one_task_and_ids_that_are_used_twice(rewright: Rewright) -> None:
    """Rows with one id get ids of their own; the same last words after another history are another task."""
    history = [
        {"role": "user", "content": "Rome?"},
        {"role": "assistant", "content": "22"},
        {"role": "user", "content": "And?"},
    ]
    rows = [
        {"id": "a", "messages": OPENAI},
        {"id": "a", "messages": OPENAI},
        {"id": "b", "prompt": history, "completion": OPENAI[1:]},
        {"id": "c", "prompt": history[-1:], "completion": OPENAI[1:]},
    ]
    tasks, found = imported(rewright, write("logs.jsonl", *rows))
    assert [one.id for one in found] == ["a", "a/1", "b", "c"]
    assert [one.index for one in found] == [0, 1, 0, 0]
    assert len(tasks) == 3
    assert [message["role"] for message in tasks[1].messages] == ["user", "assistant", "user"]


def test_several_user_messages_are_follow_ups(rewright: Rewright) -> None:
    rows = [{"messages": [*OPENAI, {"role": "user", "content": "Sure?"}, {"role": "assistant", "content": "Yes, 21."}]}]
    (task,), (one,) = imported(rewright, write("logs.jsonl", *rows))
    assert [dict(message) for part in task.follow_ups for message in part.messages] == [
        {"role": "user", "content": "Sure?"}
    ]
    assert [turn.follow_up is not None for turn in one.turns] == [False, True, False]
    assert one.answer == "Yes, 21."


def test_results_find_their_calls_by_id_name_and_order(rewright: Rewright) -> None:
    calls = [
        {"id": str(key), "type": "function", "function": {"name": name, "arguments": "{}"}}
        for key, name in enumerate(("a", "b", "b"))
    ]
    results = [
        {"role": "tool", "tool_call_id": "2", "content": "third"},
        {"role": "tool", "name": "b", "content": "second"},
        {"role": "tool", "content": "first"},
    ]
    rows = [{"messages": [QUESTION, {"role": "assistant", "tool_calls": calls}, *results, ANSWER]}]
    _, (one,) = imported(rewright, write("logs.jsonl", *rows))
    assert [result.content for result in one.results] == ["first", "second", "third"]
    _, (one,) = imported_again(rewright, [{"messages": [*rows[0]["messages"][:3], ANSWER]}])
    assert [(result.content, result.error) for result in one.results] == [
        ("", "other: the log has no result of this call"),
        ("", "other: the log has no result of this call"),
        ("third", None),
    ]


def test_calls_that_the_model_wrote_wrongly_are_malformed_calls(rewright: Rewright) -> None:
    broken = {"id": "1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": '}}
    rows = [{"messages": [QUESTION, {"role": "assistant", "content": None, "tool_calls": [broken]}, OPENAI[2], ANSWER]}]
    (task,), (one,) = imported(rewright, write("logs.jsonl", *rows))
    assert (one.calls[0].name, one.calls[0].arguments) == ("get_weather", {})
    assert str(one.calls[0].error).startswith("malformed call: ")
    assert task.tools == ()
