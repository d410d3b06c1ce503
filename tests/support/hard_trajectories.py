"""Trajectories with what is hard to carry over into another format, one by one and drawn by hypothesis."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
from hypothesis import strategies as st

from rewright.core.records import (
    Credit,
    Failure,
    FollowUp,
    Gold,
    MessageUsage,
    Provenance,
    Task,
    ToolCall,
    ToolResult,
    ToolSpec,
    Trajectory,
    Turn,
    Verdict,
)
from rewright.dialects import Hermes
from rewright.engines.served import OpenAISettings
from rewright.exports.attempts import Attempt
from rewright.pipeline.run_directory import Run
from rewright.recipe.schema import Recipe
from rewright.tasks.loading import save_tasks
from rewright.tasks.settings import TaskSettings

__all__ = ["TASK", "attempt", "hard", "made_run", "trajectories", "verdict"]

HERMES = Hermes()
SCHEMA: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "find",
        "description": "Find a person.",
        "parameters": {
            "type": "object",
            "properties": {
                "name": {"type": ["string", "null"], "description": "Who."},
                "kind": {"$ref": "#/$defs/kind", "type": "any", "enum": "no list"},
            },
            "$defs": {"kind": {"const": 1}},
            "required": ["name"],
        },
    },
}
EXAMPLE = {"type": "function", "function": {"name": "find", "arguments": {"name": "Bo"}}}
TASK = Task(
    id="people/1 ü",
    messages=(
        {"role": "system", "content": "Be brief: <answer></answer>."},
        {"role": "user", "content": "Where is Bo?"},
        {"role": "assistant", "content": "I look.", "tool_calls": [EXAMPLE]},
        {"role": "tool", "name": "find", "content": "Oslo"},
        {"role": "assistant", "content": "<answer>Oslo</answer>"},
        {"role": "user", "content": "Where is Ann? \u2028 \U0001f600"},
    ),
    tools=(ToolSpec(schema=SCHEMA, source="def find(name):\n    return 'Rome'\n"),),
    gold=Gold(answers=("Rome", "Roma"), calls=(ToolCall("find", {"name": "Ann"}),)),
)
BROKEN = (
    ToolCall("find", {}, '{"name": "find", "arguments": {"name": ', "malformed call: unexpected end"),
    ToolCall("", {}, '{"arguments": {"name": "Ann"}}', "malformed call: the call has no name"),
    ToolCall("find", {}, '{"name": "find", "arguments": [1]}', "malformed call: arguments must be a JSON object"),
    ToolCall("", {}, "", "malformed call: empty"),
)


def turn(text: str, calls: tuple[ToolCall, ...] = (), results: tuple[ToolResult, ...] = (), **more: Any) -> Turn:
    """A turn as a model writes it in the dialect hermes."""
    return Turn(text=HERMES.write(text, calls), calls=calls, results=results, **more)


def one(name: str, *turns: Turn, **more: Any) -> Trajectory:
    """A trajectory of `TASK`."""
    about: dict[str, Any] = {"stage": "synth", "index": 0, "stop_reason": "answered", "answer": "Rome"}
    return Trajectory(**{"id": f"synth/{name}", "task_id": TASK.id, "turns": turns, **about, **more})


def hard() -> list[Trajectory]:
    """One trajectory for each difficulty."""
    find = ToolCall("find", {"name": "Ann", "deep": [{"": None, "é\U0001f600": [1.5, -0.0, True, "</tool_call>"]}]})
    found, lost = ToolResult("Rome\n\x00\u2028<|im_end|>"), ToolResult("", "timeout: no answer", 1.5)
    answer = turn("<think>Found.</think><answer>Rome</answer>", token_ids=(7, 8), log_probs=(-0.1, -1e-9))
    first = {"token_ids": (3, 4), "log_probs": (-0.5, -0.3333333333333333), "suffix_ids": (5, 6)}
    user = FollowUp(messages=({"role": "user", "content": "And Bo?"},), tools=TASK.tools)
    heard = FollowUp(
        messages=({"role": "user", "content": "And Bo?"},),
        heard="Rome. </tool_call>",
        calls=(find, BROKEN[0]),
        results=(found, lost),
        usage=MessageUsage("users/model", 3, 1200, None),
    )
    gone = msgspec.structs.replace(heard, messages=({"role": "user", "content": "Thanks. ###STOP###"},), calls=())
    memory = {"role": "system", "content": "You remember: Ann. <answer></answer>"}
    provenance = Provenance(model="a/model", sampling={"temperature": 1.0}, seed=2**63, tokenizer="abc")
    spliced = Provenance(model="a/model", parent="synth/x", form="splice", turn=1)
    credit = Credit((0.5, 1.0), 1.5, (0.25, -0.25), Verdict(trajectory_id="rl/x", outcome=1.0, reason="equal"))
    tokens: dict[str, Any] = {"prompt_ids": (1, 2)}
    return [
        one("plain", turn("<think>Look.</think>Well.", (find,), (found,), **first), answer, **tokens, credit=credit),
        one("splice", turn("", (find,), (found,), **first), answer, **tokens, stage="repair", provenance=spliced),
        one("several", turn("", (find, find, find), (found, lost, found), **first), answer, **tokens),
        one("without-tokens", turn("<think>x", (find,), (found,)), turn("<answer>Rome</answer>")),
        one("tokens-without-prompt", turn("", (find,), (found,), token_ids=(1,)), answer),
        one("broken", turn("Now.", (BROKEN[0], find, *BROKEN[1:]), (lost, found, lost, lost, lost), **first), answer,
            **tokens, provenance=provenance),
        one("fewer-results", turn("", (find, find), (found,), token_ids=(3,)), **tokens, stop_reason="tool_limit",
            answer=None),
        one("truncated", turn("<answer>Ro", stop="length", token_ids=(3,)), **tokens, stop_reason="token_limit",
            answer=None),
        one("follow-up", turn("Hm.", follow_up=user, **first), answer, **tokens),
        one("simulated-user", turn("Rome.", follow_up=heard, **first), answer, **tokens, ending=gone),
        one("own-prompt", answer, **tokens, prompt=(memory, *TASK.messages[1:])),
        one("of-rl", turn("", (find,), (found,), weights_version=0, **first), msgspec.structs.replace(answer,
            weights_version=1), **tokens, stage="rl"),
        one("suffix-at-the-end", turn("", (find,), (found,), **first), **tokens, stop_reason="turn_limit", answer=None),
        one("failure", turn("", (find,), (found,), **first), **tokens, stop_reason="error", answer=None,
            failure=Failure("engine", "connection refused", "connection"), seconds=2.5),
        one("nothing", stop_reason="error", answer=None, failure=Failure("engine", "gone")),
        one("empty", turn("", token_ids=(9,)), prompt_ids=(), stop_reason="no_answer", answer=None),
    ]  # fmt: skip


def verdict(trajectory: Trajectory) -> Verdict | None:
    """The verdict of a trajectory; None for one without an answer."""
    if trajectory.answer is None:
        return None
    return Verdict(trajectory_id=trajectory.id, outcome=1.0, reason="equal", answer="Rome", metrics={"f1": 0.5})


def attempt(trajectory: Trajectory) -> Attempt:
    """A trajectory of `TASK` as exporters are given it."""
    return Attempt(trajectory, TASK, verdict(trajectory), 1, HERMES)


def made_run(folder: Path, trajectories: list[Trajectory], *, task: Task = TASK, **settings: Any) -> Path:
    """A run with these trajectories of a task, judged."""
    folder.mkdir(parents=True, exist_ok=True)
    save_tasks(folder / "given.jsonl", [task])
    recipe = Recipe(
        name="hard", model=OpenAISettings(path="some-model", base_url="http://localhost:1/v1"),
        tasks=TaskSettings(format="rewright", path=str(folder / "given.jsonl")), **settings,
    )  # fmt: skip
    run = Run.create(folder / "run", recipe, resume=False)
    run.tasks.append(task)
    for one in trajectories:
        run.trajectories.append(one)
        if (found := verdict(one)) is not None:
            run.verdicts.append(found)
    run.close()
    return run.path


WORDS = st.text(max_size=20)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=5,
)
CALLS = st.builds(
    ToolCall, st.sampled_from(["find", "f", "ü", "a.b"]), st.dictionaries(WORDS, JSON, max_size=3), st.just("") | WORDS
)
RESULTS = st.builds(
    ToolResult, WORDS, st.none() | st.just("exception: ValueError: no"), st.just(0.0) | st.floats(0, 1e6)
)
COUNTS = st.none() | st.integers(0, 10**6)
SAID = st.fixed_dictionaries({"role": st.sampled_from(["user", "system"]), "content": WORDS})
CREDITS = st.builds(
    Credit, st.just((0.5, -1.0)), st.none() | st.floats(-1, 1), st.just((0.0, 1e-9)), format_problem=st.none() | WORDS
)
USERS = st.builds(
    FollowUp, st.lists(SAID, min_size=1, max_size=2).map(tuple), heard=st.none() | WORDS,
    calls=st.lists(CALLS | st.sampled_from(BROKEN), max_size=2).map(tuple),
    results=st.lists(RESULTS, max_size=2).map(tuple),
    usage=st.none() | st.builds(MessageUsage, WORDS, st.integers(1, 50), COUNTS, COUNTS),
)  # fmt: skip
IDS = st.integers(0, 200_000)
ORIGINS = st.builds(
    Provenance, st.just("m"), st.dictionaries(WORDS, JSON, max_size=2), COUNTS, st.none() | WORDS, st.none() | WORDS
)


@st.composite
def turns(draw: st.DrawFn, *, tokens: bool, last: bool) -> Turn:
    calls = tuple(draw(st.lists(CALLS | st.sampled_from(BROKEN), max_size=3)))
    results = tuple(draw(RESULTS) for _ in calls[: draw(st.integers(0, 3)) if last else None])
    written: dict[str, Any] = {}
    if tokens and draw(st.integers(0, 9)):  # the engine did not return those of some turns
        ids = draw(st.lists(IDS, max_size=5))
        log_probs = draw(st.none() | st.lists(st.floats(-50, 0), min_size=len(ids), max_size=len(ids)))
        written = {"token_ids": tuple(ids), "log_probs": None if log_probs is None else tuple(log_probs)}
        if results or not last:  # the tokens of results or of a user's message
            written["suffix_ids"] = tuple(draw(st.lists(IDS, max_size=4)))
    thought = draw(st.none() | WORDS)
    text = ("" if thought is None else f"<think>{thought}</think>") + draw(WORDS)
    follow_up = None
    if not calls and not last:
        follow_up = msgspec.structs.replace(draw(USERS), tools=TASK.tools if draw(st.booleans()) else ())
    written |= {"opening": draw(st.sampled_from(["", "", "<think>\n"])), "prompt_tokens": draw(COUNTS)}
    return turn(
        text, calls, results, stop=draw(st.sampled_from(["end", "length", "stop"])), follow_up=follow_up,
        completion_tokens=draw(COUNTS), weights_version=draw(COUNTS), **written,
    )  # fmt: skip


@st.composite
def trajectories(draw: st.DrawFn) -> Trajectory:
    """Trajectories with at least one turn; every turn but the last has a result for each call."""
    tokens = draw(st.booleans())
    count = draw(st.integers(1, 4))
    drawn = [draw(turns(tokens=tokens, last=number + 1 == count)) for number in range(count)]
    failure = draw(st.none() | st.just(Failure("engine", "gone")))
    return one(
        "drawn", *drawn, prompt_ids=tuple(draw(st.lists(IDS, max_size=5))) if tokens else None, failure=failure,
        answer=draw(st.none() | WORDS), stop_reason="error" if failure else "turn_limit",
        stage=draw(st.sampled_from(["synth", "rl"])), index=draw(st.integers(0, 9)), credit=draw(st.none() | CREDITS),
        seconds=draw(st.floats(0, 1e6)), provenance=draw(ORIGINS), opening=draw(st.none() | USERS),
        ending=draw(st.none() | USERS), prompt=draw(st.none() | st.lists(SAID, min_size=1, max_size=2).map(tuple)),
    )  # fmt: skip
