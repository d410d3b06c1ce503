"""The language model that judges, over a chat server on loopback, and the signal `judge` on top of it."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest

from rewright.core import progress
from rewright.core.errors import EngineError, InputError
from rewright.credit import CreditTrajectory, CreditTurn, turn_signal
from rewright.credit.judge_rubric import redistribute
from rewright.credit.resources import Resources
from rewright.engines.embedded import HFSettings
from rewright.engines.served import OpenAISettings
from rewright.pipeline.judge_resource import open_judge
from rewright.rollout.language_judge import JUDGEMENTS, Judgement, LanguageJudge
from support.chat_server import Body, chat_server, said_by_user, says
from support.served import served

SCHEMA = {"type": "object", "properties": {"score": {"type": "number"}}, "required": ["score"]}
Answer = Callable[[Body], str]


def settings(url: str) -> OpenAISettings:
    return OpenAISettings(path="wise", base_url=f"{url}/v1", attempts=1, max_wait_seconds=0.01)


@pytest.fixture
def judge_of(tmp_path: Path) -> Iterator[Callable[..., LanguageJudge]]:
    """Makes a judge whose server answers by a function of the request."""
    opened: list[Any] = []

    def make(answer: Answer, seen: list[Body] | None = None, *, file: Path | None = None) -> LanguageJudge:
        server = served(lambda: chat_server(lambda body: says(answer(body)), seen=seen))
        judge = LanguageJudge(settings(server.__enter__()), file)
        opened.append((judge, server))
        return judge

    yield make
    for judge, server in opened:
        judge.close()
        server.__exit__(None, None, None)


def stored(file: Path) -> list[Judgement]:
    return [msgspec.json.decode(line, type=Judgement) for line in file.read_bytes().splitlines()]


@pytest.mark.parametrize(
    "text",
    [
        '{"score": 0.5}',
        'Here it is:\n```json\n{"score": 0.5}\n```\nGood luck.',
        '<think>{"score": 1}? No.</think>\n{"score": 0.5} {"score": 0.9}',
    ],
)
def test_json_in_a_fence_after_words_and_after_thoughts(judge_of: Any, text: str) -> None:
    assert judge_of(lambda _: text)(["How good?"], SCHEMA) == [{"score": 0.5}]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("no idea", "it holds no JSON object"),
        ('{"score": NaN}', "it is not JSON: NaN"),
        ('{"score": "high"}', "$.score: 'high' is not of type 'number'"),
        ('{"mark": 1}', "$: 'score' is a required property"),
        ('{"score": 1', "it is not JSON: it ends inside a value"),
        ('{"score": 2}', "too much"),
        ("", "it holds no JSON object"),
    ],
)
def test_a_refused_answer_is_sent_back_twice_and_then_there_is_none(
    judge_of: Any, tmp_path: Path, text: str, problem: str
) -> None:
    def check(index: int, value: Any) -> None:
        if value["score"] > 1:
            raise ValueError("too much")

    seen: list[Body] = []
    judge = judge_of(lambda _: text, seen, file=tmp_path / "j.jsonl")
    assert judge(["How good?"], SCHEMA, check=check) == [None]
    assert [len(body["messages"]) for body in seen] == [1, 3, 5]
    assert problem in said_by_user(seen[1])
    assert {body["temperature"] for body in seen} == {0.0}
    rows = stored(tmp_path / "j.jsonl")
    assert [(row.attempt, row.prompt, row.answer) for row in rows] == [(n, "How good?", text) for n in range(3)]
    assert all(row.problem is not None and problem in row.problem for row in rows)
    assert judge(["How good?"], SCHEMA, check=check) == [None]  # no answer is not kept
    assert len(seen) == 6


def test_an_answer_is_used_again_after_a_restart_and_equal_prompts_are_one(judge_of: Any, tmp_path: Path) -> None:
    seen: list[Body] = []
    answers = iter(["bad", '{"score": 0.25}', '{"score": 0.75}'])
    file = tmp_path / "j.jsonl"
    judge = judge_of(lambda _: next(answers), seen, file=file)
    assert judge(["a", "a"], SCHEMA) == [{"score": 0.25}] * 2
    judge.close()
    with file.open("ab") as half:
        half.write(b'{"id": "x", "mod')  # a kill in the middle of a line
    judge = judge_of(lambda _: next(answers), seen, file=file)
    assert judge(["b", "a"], SCHEMA) == [{"score": 0.75}, {"score": 0.25}]
    assert len(seen) == 3
    assert [(row.attempt, row.problem is None) for row in stored(file)] == [(0, False), (1, True), (0, True)]
    assert all(row.completion_tokens == 5 and (row.prompt_tokens or 0) > 1000 for row in stored(file))
    other = LanguageJudge(msgspec.structs.replace(settings("http://127.0.0.1:9"), path="other"), file)
    with pytest.raises(EngineError):  # another model has given no answer
        other(["a"], SCHEMA)
    other.close()


def test_a_server_that_is_gone_is_no_answer_of_the_judge(tmp_path: Path) -> None:
    judge = LanguageJudge(settings("http://127.0.0.1:9"), tmp_path / "j.jsonl")
    one = CreditTrajectory([CreditTurn([], text="77")], id="a", task_id="q")
    with pytest.raises(EngineError, match=r"127\.0\.0\.1:9"):
        turn_signal([one], "judge", resources=Resources(judge=judge))
    judge.close()
    assert not (tmp_path / "j.jsonl").exists()


def test_the_judge_of_a_recipe(tmp_path: Path) -> None:
    with served(lambda: chat_server(lambda _: says('{"score": 1}'))) as url:
        sources = SimpleNamespace(recipe=SimpleNamespace(signals=SimpleNamespace(judge=settings(url))), run=tmp_path)
        judge = open_judge(sources)
        assert judge(["a"], SCHEMA) == [{"score": 1}]
        judge.close()
    assert len(stored(tmp_path / JUDGEMENTS)) == 1
    sources.recipe.signals.judge = None
    with pytest.raises(InputError, match=r"signals.judge is missing: expected a model"):
        open_judge(sources)
    sources.recipe.signals.judge = OpenAISettings(path="wise")
    with pytest.raises(InputError, match=r"signals.judge.base_url is missing"):
        open_judge(sources)


async def test_it_can_be_asked_where_an_event_loop_runs(judge_of: Any) -> None:
    judge = judge_of(lambda _: '{"score": 1}')
    assert judge(["a", "b"], SCHEMA) == [{"score": 1}] * 2
    judge.close()


@pytest.mark.needs_torch
def test_a_model_in_this_process_judges_too(tmp_path: Path) -> None:
    """Pico writes no JSON: its answers are asked for three times, counted, and there is no number."""
    judge = LanguageJudge(HFSettings(path="pico"), tmp_path / "j.jsonl", answer_tokens=8)
    one = CreditTrajectory([CreditTurn([], text="77")], id="a", task_id="q")
    found = turn_signal([one], "judge", resources=Resources(judge=judge))
    judge.close()
    assert found.missing[0].tolist() == [True]
    rows = stored(tmp_path / "j.jsonl")
    assert [row.attempt for row in rows] == [0, 1, 2]
    assert all((row.prompt_tokens or 0) > 100 and 0 < (row.completion_tokens or 0) <= 8 for row in rows)


# The signal.


def turn(of: str, age: str = "36") -> CreditTurn:
    return CreditTurn([{"name": "age", "arguments": {"of": of}}], [age], text="")


def attempts(*turns: list[CreditTurn], task: str = "q") -> list[CreditTrajectory]:
    question = [{"role": "user", "content": "How old together?"}]
    end = CreditTurn([], text="77")
    return [
        CreditTrajectory(
            [*row, end], id=f"{task}/{number}", task_id=task, messages=question, golds=[{"name": "GOLD"}],
            answers=["ANSWER"], outcome=0.125,
        )
        for number, row in enumerate(turns)
    ]  # fmt: skip


def ids_in(body: Body) -> list[str]:
    return body["messages"][0]["content"].rpartition("The ids are: ")[2].split(", ")


def scored(score: Callable[[str], float], *, reverse: bool = True) -> Answer:
    def answer(body: Body) -> str:
        entries = [{"id": name, "score": score(name)} for name in ids_in(body)]
        return json.dumps({"scores": entries[::-1] if reverse else entries})

    return answer


def prompt_of(body: Body) -> str:
    return str(body["messages"][0]["content"])


def by_person(body: Body) -> str:
    """Scores by what an attempt did: Ada first 0.75, Ben first 0.25."""
    parts = prompt_of(body).split("Attempt ")[1:]
    entries = [{"id": part[0], "score": 0.75 if "Ada" in part else 0.25} for part in parts]
    return json.dumps({"scores": entries})


def test_ruler_scores_the_attempts_at_a_task_beside_each_other(judge_of: Any) -> None:
    seen: list[Body] = []
    rows = [*attempts([turn("Ada")], [turn("Ben")], [turn("Ada")]), *attempts([turn("Ada")], task="r")]
    found = turn_signal(rows, "judge", resources=Resources(judge=judge_of(by_person, seen)), twice=0.0)
    assert [row.tolist() for row in found.values] == [[0.0, 0.75], [0.0, 0.25], [0.0, 0.75], [0.0, 0.75]]
    assert (found.kind, dict(found.stats)) == (
        "reward",
        {"judge/prompts": 2.0, "judge/clipped": 0.0, "judge/missing": 0.0},
    )
    assert len(seen) == 2  # equal attempts are shown once
    assert all(word not in prompt_of(body) for body in seen for word in ("GOLD", "ANSWER", "0.125"))
    assert prompt_of(seen[0]).count("How old together?") == 1


def test_the_judge_is_told_what_the_settings_say(judge_of: Any) -> None:
    seen: list[Body] = []
    judge = judge_of(scored(lambda _: 0.5), seen)
    long = [CreditTurn([], text="a" * 900 + "MIDDLE" + "b" * 900)]
    turn_signal(
        attempts(long), "judge", resources=Resources(judge=judge), show_outcome=True, show_gold=True, characters=40
    )
    (body,) = seen
    assert all(word in prompt_of(body) for word in ("GOLD", "ANSWER", "(outcome 0.125)", "characters left out"))
    assert "MIDDLE" not in prompt_of(body)


def test_scores_of_turns_go_by_id_and_what_all_begin_with_is_shown_once(judge_of: Any) -> None:
    seen: list[Body] = []
    rows = attempts([turn("Ada"), turn("Ben")], [turn("Ada"), turn("Zoe")])
    judge = judge_of(scored(lambda name: int(name[-1]) / 10), seen)
    found = turn_signal(rows, "judge", resources=Resources(judge=judge), per="turn", twice=0.0)
    assert [row.tolist() for row in found.values] == [[0.1, 0.2, 0.3]] * 2
    assert prompt_of(seen[0]).count("Ada") == 1
    assert sorted(ids_in(seen[0])) == ["1-1", "1-2", "1-3", "2-1", "2-2", "2-3"]


@pytest.mark.parametrize(
    ("entries", "problem"),
    [
        ([("1", 0.5)], "there are 1 entries and none with the id 2: expected 2"),
        ([("1", 0.5), ("1", 0.5)], "the id 1 is there twice"),
        ([("1", 0.5), ("3", 0.5)], "the id '3' is none of those asked for: expected 1, 2"),
        ([("1", 0.5), ("2", 0.5), ("3", 0.5)], "the id '3' is none of those"),
        ([("1", 0.5), ("2", math.nan)], "it is not JSON: NaN is not JSON"),
        ([("1", 0.5), ("2", True)], "True is not of type 'number'"),
        ([("1", 0.5), ("2", None)], "None is not of type 'number'"),
        ([("1", 0.5), ("2", 10**400)], "the score of id 2 is 1000"),
    ],
)
def test_wrong_ids_and_scores_make_the_group_missing_and_never_zero(judge_of: Any, entries: Any, problem: str) -> None:
    seen: list[Body] = []
    text = json.dumps({"scores": [{"id": name, "score": score} for name, score in entries]})
    rows = attempts([turn("Ada")], [turn("Ben")])
    found = turn_signal(rows, "judge", resources=Resources(judge=judge_of(lambda _: text, seen)), twice=0.0)
    assert [mask.all() for mask in found.missing] == [True, True]
    assert found.stats["judge/missing"] == 2
    assert problem in said_by_user(seen[1])


def test_integer_ids_count_and_scores_outside_are_clipped_and_counted(judge_of: Any) -> None:
    text = json.dumps({"scores": [{"id": 2, "score": 9.0}, {"id": 1, "score": -1}]})
    found = turn_signal(
        attempts([turn("Ada")], [turn("Ben")]), "judge", resources=Resources(judge=judge_of(lambda _: text)), twice=0.0
    )
    assert sorted(row[-1] for row in found.values) == [0.0, 1.0]
    assert found.stats["judge/clipped"] == 2


def test_what_is_asked_twice_is_in_another_order_and_shows_the_judge_s_agreement(judge_of: Any) -> None:
    rows = attempts([turn("Ada")], [turn("Ben")], [turn("Zoe")])
    fair = turn_signal(rows, "judge", resources=Resources(judge=judge_of(by_person)), twice=1.0)
    assert (fair.stats["judge/agreement"], fair.stats["judge/prompts"]) == (1.0, 2.0)
    by_place = judge_of(scored(lambda name: (int(name) - 1) / 2))  # the last one wins
    unfair = turn_signal(rows, "judge", resources=Resources(judge=by_place), twice=1.0)
    assert unfair.stats["judge/agreement"] == pytest.approx(1 - 2 / 3)


def test_large_groups_are_divided(judge_of: Any) -> None:
    seen: list[Body] = []
    rows = attempts(*([turn(f"person {number}")] for number in range(5)))
    judge = judge_of(scored(lambda _: 0.5), seen)
    turn_signal(rows, "judge", resources=Resources(judge=judge), most=2, twice=0.0)
    assert sorted(len(ids_in(body)) for body in seen) == [1, 2, 2]
    again: list[Body] = []
    turn_signal(rows, "judge", resources=Resources(judge=judge_of(scored(lambda _: 0.5), again)), most=2, twice=0.0)
    assert sorted(map(prompt_of, seen)) == sorted(map(prompt_of, again))


@pytest.mark.parametrize(("count", "sizes"), [(8, [8]), (9, [4, 5]), (17, [5, 6, 6])])
def test_the_prompts_of_a_large_group_are_of_nearly_one_size(judge_of: Any, count: int, sizes: list[int]) -> None:
    seen: list[Body] = []
    rows = attempts(*([turn(f"person {number}")] for number in range(count)))
    found = turn_signal(rows, "judge", resources=Resources(judge=judge_of(scored(lambda _: 0.5), seen)), twice=0.0)
    assert sorted(len(ids_in(body)) for body in seen) == sizes
    assert [row.tolist() for row in found.values] == [[0.0, 0.5]] * count


def test_each_attempt_is_shown_with_what_its_user_said_before_it(judge_of: Any) -> None:
    """Simulated users open attempts at one task differently."""
    rows = [
        dataclasses.replace(
            one, messages=[{"role": "system", "content": "Be kind."}, {"role": "user", "content": said}]
        )
        for one, said in zip(
            attempts([turn("Zoe")], [turn("Zoe")], [turn("Zoe")]), ("Ada?", "Ben?", "Ben?"), strict=True
        )
    ]
    seen: list[Body] = []
    found = turn_signal(rows, "judge", resources=Resources(judge=judge_of(by_person, seen)), twice=0.0)
    assert [row[-1] for row in found.values] == [0.75, 0.25, 0.25]  # the second and third are equal, the first is not
    (body,) = seen
    task, *parts = prompt_of(body).split("Attempt ")
    assert "Be kind." in task and prompt_of(body).count("Be kind.") == 1
    assert "Ada?" not in task and "Ben?" not in task and "All attempts begin" not in task
    assert sorted("Ada?" in part for part in parts) == sorted("Ben?" in part for part in parts) == [False, True]
    assert all('before turn 1: {"role": "user"' in part and "Zoe" in part for part in parts)


def rubric(body: Body) -> str:
    """The first attempt with Ben fails criterion 1 at turn 1; all else passes, and cites turn 2."""
    failed = "Ben" in prompt_of(body)
    return json.dumps(
        {
            "verdicts": [
                {"id": "2", "verdict": "pass", "turns": [2]},
                {"id": "1", "verdict": "fail" if failed else "pass", "turns": [1]},
            ]
        }
    )


def test_draco_redistributes_the_advantage_over_the_cited_turns(judge_of: Any) -> None:
    rows = attempts([turn("Ada")], [turn("Ben")])
    judge = judge_of(rubric)
    found = turn_signal(rows, "judge", resources=Resources(judge=judge), form="draco", criteria=("a", "b"), twice=1.0)
    # Nobody failed b, which is left out. R is 1 and -1, A 1/sqrt(2) and -1/sqrt(2). Each cites turn 1 only: Q of it is
    # 1 and 0, and turn 2 has the same: no weight differs, so every turn keeps A.
    half = pytest.approx(2**-0.5, abs=1e-5)
    assert found.kind == "advantage"
    assert [row.tolist() for row in found.values] == [[half, half], [pytest.approx(-(2**-0.5), abs=1e-5)] * 2]
    assert found.stats == {"judge/prompts": 4.0, "judge/inert": 1.0, "judge/agreement": 1.0, "judge/missing": 0.0}


def test_draco_of_one_attempt_alone_counts_what_it_passed(judge_of: Any) -> None:
    resources, how = Resources(judge=judge_of(rubric)), {"form": "draco", "criteria": ("a", "b"), "twice": 0.0}
    failed_one, failed_none = attempts([turn("Ben")], [turn("Ada")])
    # Each is alone: R is (1 - 1) / 2 and 2 / 2, and A is R.
    apart = [dataclasses.replace(failed_one, task_id="p"), dataclasses.replace(failed_none, task_id="q")]
    assert [row.tolist() for row in turn_signal(apart, "judge", resources=resources, **how).values] == [
        [0.0, 0.0],
        [1.0, 1.0],
    ]
    # In a group the criterion that both pass is left out: R is -1 and 1.
    (low, high) = turn_signal([failed_one, failed_none], "judge", resources=resources, **how).values
    assert low[0] == pytest.approx(-(2**-0.5), abs=1e-5) and high[0] == pytest.approx(2**-0.5, abs=1e-5)


@pytest.mark.parametrize(
    ("verdict", "problem"),
    [
        ({"verdict": "pass", "turns": [3]}, "criterion 1 cites turn 3: expected turns 1 to 2"),
        ({"verdict": "maybe", "turns": []}, "'maybe' is not one of ['pass', 'fail', 'none']"),
        ({"verdict": "pass"}, "'turns' is a required property"),
    ],
)
def test_wrong_verdicts_are_missing(judge_of: Any, verdict: Any, problem: str) -> None:
    seen: list[Body] = []
    text = json.dumps({"verdicts": [{"id": "1", **verdict}]})
    found = turn_signal(
        attempts([turn("Ada")]),
        "judge",
        resources=Resources(judge=judge_of(lambda _: text, seen)),
        form="draco",
        criteria=("a",),
    )
    assert found.missing[0].all()
    assert problem in said_by_user(seen[1])


def test_redistribution_keeps_sum_and_sign_by_hand() -> None:
    verdicts = {"1": ("pass", [1]), "2": ("fail", [1, 2]), "3": ("none", [3]), "4": ("pass", [])}
    # Q: turn 1 1/2, turn 2 0, turn 3 the mean of both, 1/4. N = 10.
    found = redistribute(0.5, verdicts, [2, 3, 5])
    assert found.tolist() == pytest.approx([0.5 * 10 * 0.5 / (2 * 0.75), 0.0, 0.5 * 10 * 0.25 / (5 * 0.75)])
    assert float(found @ np.array([2, 3, 5])) == pytest.approx(0.5 * 10)
    found = redistribute(-0.5, verdicts, [2, 3, 5])  # w = 1 - Q: 1/2, 1, 3/4
    assert found.tolist() == pytest.approx([-5 * 0.5 / (2 * 2.25), -5 / (3 * 2.25), -5 * 0.75 / (5 * 2.25)])
    assert redistribute(0.5, {"1": ("fail", [1])}, [2, 3]).tolist() == [0.5, 0.5]  # all weights are 0
    assert redistribute(-0.5, {}, [2, 3]).tolist() == [-0.5, -0.5]
    assert redistribute(0.5, {"1": ("pass", [1, 2])}, [2, 0]).tolist() == [0.5, 0.0]
    draw = np.random.default_rng(0)
    for _ in range(50):
        turns = int(draw.integers(1, 6))
        verdicts = {
            str(name): (
                ["pass", "fail", "none"][draw.integers(3)],
                [int(one) for one in draw.integers(1, turns + 1, 2)],
            )
            for name in range(4)
        }
        tokens, level = draw.integers(1, 50, turns), float(draw.normal())
        found = redistribute(level, verdicts, tokens.tolist())
        assert float(found @ tokens) == pytest.approx(level * tokens.sum())
        assert (found * level >= 0).all()


def test_requests_that_take_long_are_counted_on_standard_error(
    judge_of: Callable[..., LanguageJudge], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    judge = judge_of(lambda body: f'{{"score": {len(said_by_user(body))}}}')
    assert judge(["a", "bb"], SCHEMA) == [{"score": 1}, {"score": 2}]
    assert "judge requests" not in capfd.readouterr().err
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    assert judge(["ccc", "bb"], SCHEMA) == [{"score": 3}, {"score": 2}]
    assert "judge requests: 2/2 in " in capfd.readouterr().err
