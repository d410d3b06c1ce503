"""Repairs that talk about an attempt that the student never sees: refused, with the phrase as the reason."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from rewright.cli import main as cli
from rewright.core.errors import InputError
from rewright.core.records import FollowUp, Gold, Task, ToolCall, ToolResult, ToolSpec, Trajectory, Turn
from rewright.recipe.loader import load_recipe
from rewright.repair.references import unseen_reference
from rewright.tasks.loading import save_tasks
from rewright.tasks.worlds import almanac, almanac_demonstrations, town
from rewright.tasks.worlds.demonstrations import STYLES, demonstrate
from support.served import served

REFUSED = (
    # The attempt.
    "The attempt above ends with a wrong answer, so I multiply again.",
    "The **previous attempt** misread the task.",
    "Unlike the attempt shown above, I multiply.",
    "In the attempt, one was taken away at the end.",
    "That attempt took one away.",
    "The first attempt got 251.",
    "My earlier attempt was redundant.",
    "The student’s attempt took one away.",
    "The original solution forgot the carry.",
    "The solution provided earlier is redundant.",
    "The earlier answer of 251 was not correct.",
    "The trajectory above is wrong because it takes one away.",
    "The assistant misread the task.",
    "Here is a more concise version.",
    # Its correction.
    "The mistake was to take one away.",
    "The error lies in the last step.",
    "Correcting the attempt: 36 * 7 is 252.",
    "Here is the corrected solution.",
    "I need to fix the mistake in the calculation.",
    "This time I multiply properly.",
    "Let me solve the task again from the start.",
    "I was asked to repair this.",
    "I am allowed at most 3 calls.",
    # The answer that was shown.
    "The right answer given to me is 252.",
    "I was told that the correct answer is 252.",
    "Since the right answer is 252, I work backwards.",
    "The reference answer is 252.",
    "This matches the given answer.",
    "The answer I was given is 252.",
    "This agrees with the expected answer of 252.",
    "The user says the right answer is 252.",
)
ACCEPTED = (
    "I multiply 36 by 7.",
    "So the correct answer is 252.",
    "The right answer is 252: 36 times 7.",
    "If the first attempt fails, I call once more.",
    "In an attempt to save calls, I call once.",
    "I am given two numbers.",
    "I need only two calls.",
    "The answer is given by the product.",
    "The error is at most 0.05.",
    "From the above, the product is 252.",
    "At this time the shop is open.",
    "I know the answer is 252.",
    "To avoid a wrong answer, I multiply in parts.",
    "The original price was 20.",
    "The given numbers are 36 and 7.",
)
AFTER_A_CALL = (
    "The first attempt to call the API failed, so I multiply by hand.",
    "The previous attempt failed; I do it by hand.",
    "My previous call failed. This time I multiply by hand.",
    "The attempt timed out. Let me retry the product by hand.",
    "The mistake was to pass a string.",
)
"""Right words where the repair has called a tool before."""

SOURCE = "def times(a, b):\n    raise RuntimeError('the API is down')\n"
SCHEMA = {
    "type": "function",
    "function": {
        "name": "times",
        "description": "a times b",
        "parameters": {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}},
    },
}
CALL = '<think>I call.</think><tool_call>{"name": "times", "arguments": {"a": 36, "b": 7}}</tool_call>'


def said(request: dict[str, Any], own: str) -> str:
    """What the server's model says: a wrong answer at first; asked for a repair, it writes `own` in it."""
    asked = next(one["content"] for one in reversed(request["messages"]) if "Task " in str(one["content"]))
    called = any(one["role"] == "assistant" for one in request["messages"])
    if "Attempt:" not in asked:
        return "<think>One less.</think><answer>251</answer>"
    if own in AFTER_A_CALL and not called:
        return CALL
    return f"<think>{own}</think><answer>252</answer>"


def application(wordings: tuple[str, ...], prompts: list[str]) -> web.Application:
    async def chat(request: web.Request) -> web.Response:
        body = await request.json()
        text = " ".join(str(one["content"]) for one in body["messages"])
        prompts.append(text)
        number = int(text.split("Task ")[1].split(":")[0])
        message = {"role": "assistant", "content": said(body, wordings[number])}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        return web.json_response({"id": "1", "object": "chat.completion", "model": "m", "choices": [choice]})

    app = web.Application()
    app.router.add_post("/v1/chat/completions", chat)
    return app


@pytest.fixture(scope="module")
def repaired(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """A run with one task for every wording: {wording: its decision}, the SFT rows and the prompts."""
    folder = tmp_path_factory.mktemp("references")
    wordings = (*REFUSED, *ACCEPTED, *AFTER_A_CALL)
    tasks = [
        Task(
            id=str(number),
            messages=({"role": "user", "content": f"Task {number}: what is 36 times 7?"},),
            tools=(ToolSpec(SCHEMA, source=SOURCE),) if wording in AFTER_A_CALL else (),
            gold=Gold(answers=("252",)),
        )
        for number, wording in enumerate(wordings)
    ]
    save_tasks(folder / "tasks.jsonl", tasks)
    prompts: list[str] = []
    with served(lambda: application(wordings, prompts)) as url:
        (folder / "r.yaml").write_text(
            "stages: [synth, judge, score, repair, build]\nsynth: {n: 1}\nsandbox: process\n"
            "build: {held_out_fraction: 0}\n"
            f"model: {{path: m, engine: openai, base_url: '{url}/v1', mode: chat, log_probs: 'off'}}\n"
            f"tasks: {folder / 'tasks.jsonl'}\n"
        )
        cli.app(["run", str(folder / "r.yaml"), "--run", str(folder / "run")], standalone_mode=False)
    rows = [json.loads(line) for line in (folder / "run" / "repairs.jsonl").read_text().splitlines()]
    yield {
        "decisions": {wordings[int(row["task_id"])]: row for row in rows},
        "sft": (folder / "run" / "sft.jsonl").read_text(encoding="utf-8"),
        "hard": (folder / "run" / "hard.jsonl").read_text(encoding="utf-8"),
        "prompts": prompts,
    }


@pytest.mark.parametrize("wording", REFUSED)
def test_a_right_repair_that_refers_to_what_is_not_seen_is_refused(repaired: dict[str, Any], wording: str) -> None:
    decision = repaired["decisions"][wording]
    assert not decision["accepted"]
    phrase = decision["reason"].removeprefix("refers to what the student does not see: ").strip("'\"")
    assert phrase and phrase in wording.replace("*", "").replace("’", "'")
    assert wording not in repaired["sft"]
    assert decision["reason"] in [one["reason"] for one in map(json.loads, repaired["hard"].splitlines())]


@pytest.mark.parametrize("wording", [*ACCEPTED, *AFTER_A_CALL])
def test_a_repair_that_speaks_of_its_own_work_is_taken(repaired: dict[str, Any], wording: str) -> None:
    decision = repaired["decisions"][wording]
    assert decision["accepted"], decision["reason"]
    assert wording in repaired["sft"]


def test_the_repairer_is_asked_for_a_solution_that_stands_alone(repaired: dict[str, Any]) -> None:
    asked = [prompt for prompt in repaired["prompts"] if "Attempt:" in prompt]
    assert asked
    assert all("fresh, self-contained solution" in prompt and "never mention the attempt" in prompt for prompt in asked)


def attempt(*turns: Turn) -> Trajectory:
    return Trajectory(id="a", task_id="t", stage="repair", index=0, turns=turns, stop_reason="answered")


def task(*messages: tuple[str, str]) -> Task:
    return Task(id="t", messages=tuple({"role": role, "content": content} for role, content in messages))


def test_the_words_of_the_task_and_of_results_may_be_repeated() -> None:
    mountain = task(("user", "Who led the first attempt on K2, and was the Correct answer given to us known?"))
    spoken = attempt(Turn("<think>The first attempt on K2.</think><answer>Eckenstein</answer>"))
    assert unseen_reference(mountain, spoken) is None
    assert unseen_reference(task(("user", "Who climbed K2?")), spoken) == "The first attempt"
    found = (ToolResult("Page 1: the reference answer is in the appendix."),)
    spoken = attempt(Turn("I search.", results=found), Turn("The reference answer is in the appendix."))
    assert unseen_reference(task(("user", "Where?")), spoken) is None
    assert unseen_reference(task(("user", "Where?")), attempt(*spoken.turns[1:])) == "reference answer"


def test_where_the_assistant_has_spoken_before_its_words_may_be_meant() -> None:
    spoken = attempt(Turn("My previous answer holds.<answer>5</answer>"))
    asked = task(("user", "2 + 3?"), ("assistant", "5"), ("user", "Sure?"))
    assert unseen_reference(asked, spoken) is None
    assert unseen_reference(task(("user", "2 + 3?")), spoken) == "previous answer"
    again = FollowUp(({"role": "user", "content": "Sure?"},))
    assert unseen_reference(task(("user", "2 + 3?")), attempt(Turn("5", follow_up=again), *spoken.turns)) is None


def test_comments_in_a_program_are_searched_too() -> None:
    code = "# The attempt above used 6.\nprint(36 * 7)"
    turn = Turn(f"<think>x</think><code>{code}</code>", calls=(ToolCall("python", {"code": code}),))
    assert unseen_reference(task(("user", "36 * 7?")), attempt(turn)) == "attempt above"


def test_the_phrases_are_a_setting(tmp_path: Path) -> None:
    spoken = attempt(Turn("Der obige Versuch ist falsch.<answer>5</answer>"))
    asked = task(("user", "2 + 3?"))
    assert unseen_reference(asked, spoken) is None
    recipe = load_recipe(None, ["repair.refused_phrases=[default, 'obige\\w* versuch']"])
    assert unseen_reference(asked, spoken, recipe.repair.refused_phrases) == "obige Versuch"
    old = attempt(Turn("The attempt above is wrong."))
    assert unseen_reference(asked, old, recipe.repair.refused_phrases) == "attempt above"
    off = load_recipe(None, ["repair.refused_phrases=[]", "repair.refused_first_phrases=[]"]).repair
    assert unseen_reference(asked, old, off.refused_phrases, off.refused_first_phrases) is None


def test_the_shipped_repairers_write_nothing_that_is_refused() -> None:
    """They were trained on these: the shipped weights write the same words."""
    for one in town.generate("train", 60, profile="all"):
        for style in STYLES:
            assert unseen_reference(one, demonstrate(one, style=style)) is None
    for one in almanac.generate("train", 60):
        for style in STYLES:
            assert unseen_reference(one, almanac_demonstrations.demonstrate(one, style=style)) is None


@pytest.mark.parametrize(
    ("phrase", "reason"),
    [("'('", "'\\(' is not a regular expression"), ("'x*'", "'x\\*' matches the empty text"), ("''", "empty text")],
)
@pytest.mark.parametrize("key", ["refused_phrases", "refused_first_phrases"])
def test_a_phrase_that_is_none_is_a_mistake(key: str, phrase: str, reason: str) -> None:
    with pytest.raises(InputError, match=rf"repair\.{key}.*{reason}"):
        load_recipe(None, [f"repair.{key}=[{phrase}]"])
