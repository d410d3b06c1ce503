"""Verdicts on trajectories: what is judged, the Solve metrics, and their strict variants."""

import msgspec
import pytest

from rewright.core.errors import InputError
from rewright.core.records import Failure, Gold, Task, ToolCall, ToolResult, Trajectory, Turn
from rewright.judging import judge_trajectory
from rewright.judging.solve import solve_metrics


def task(judge: str = "exact", answers: tuple[str, ...] | None = ("12",), **gold: object) -> Task:
    return Task(
        id="t",
        messages=({"role": "user", "content": "?"},),
        judge=judge,
        gold=Gold(answers=answers, **gold),  # type: ignore[arg-type]
    )


def trajectory(*steps: tuple[ToolCall, ToolResult | None], answer: str | None = None) -> Trajectory:
    turns = tuple(Turn(text="", calls=(call,), results=(result,) if result else ()) for call, result in steps)
    return Trajectory(
        id="t/0",
        task_id="t",
        stage="synth",
        index=0,
        turns=turns,
        answer=answer,
        stop_reason="answered" if answer else "turn_limit",
    )


def step(tool: str, content: str, error: str | None = None, **arguments: object) -> tuple[ToolCall, ToolResult]:
    return ToolCall(tool, arguments), ToolResult(content, error)


def test_the_verdict_names_what_was_compared() -> None:
    verdict = judge_trajectory(task(), trajectory(answer=r"So it is \boxed{12.0}."))
    assert verdict.outcome == 1
    assert verdict.correct
    assert verdict.answer == "12.0"
    assert "12" in verdict.reason


def test_without_an_answer_the_reason_says_why_it_stopped() -> None:
    verdict = judge_trajectory(task(), trajectory())
    assert verdict.outcome == 0
    assert "turn_limit" in verdict.reason
    assert verdict.answer is None


def test_a_trajectory_that_broke_is_not_solved_however_far_it_had_come() -> None:
    whole = trajectory(step("age", "36"))
    broken = msgspec.structs.replace(whole, stop_reason="error", failure=Failure(kind="engine", message="no server"))
    verdicts = [judge_trajectory(task("solve", outputs={"age": ["36"]}), one) for one in (whole, broken)]
    assert [(verdict.outcome, verdict.correct) for verdict in verdicts] == [(1.0, True), (0.0, False)]
    assert "engine" in verdicts[1].reason
    assert verdicts[1].metrics == verdicts[0].metrics


@pytest.mark.parametrize("judge", ["exact", "math", "qa", "token_set_f1", "reasoning_gym"])
def test_an_empty_answer_is_wrong_under_every_judge(judge: str) -> None:
    assert judge_trajectory(task(judge), trajectory(answer=" ")).outcome == 0


def test_a_task_that_cannot_be_judged_is_an_input_error() -> None:
    with pytest.raises(InputError, match=r"task t: judge exact needs gold\.answers"):
        judge_trajectory(task(answers=None), trajectory(answer="1"))
    with pytest.raises(InputError, match=r"task t: judge solve needs gold\.outputs"):
        judge_trajectory(task("solve"), trajectory(answer="1"))
    with pytest.raises(InputError, match="unknown judge"):
        judge_trajectory(task("nobody"), trajectory())
    with pytest.raises(InputError, match=r"metadata\.dataset"):
        judge_trajectory(task("reasoning_gym"), trajectory(answer="1"))


def test_solve_metrics_come_with_any_judge_that_has_gold_outputs() -> None:
    run = trajectory(
        step("find", '{"city": "Rome"}', name="Ann"),
        step("find", '{"city": "Rome"}', name="Ann"),
        step("count", "population 2,800,000", city="Rome"),
        answer="12",
    )
    verdict = judge_trajectory(task(outputs={"find": ["Rome", "Oslo"], "count": ["2,800,000"]}), run)
    assert verdict.outcome == 1
    assert verdict.metrics["solve_p"] == pytest.approx(2 / 3)
    assert verdict.metrics["solve_r"] == pytest.approx(2 / 3)
    assert verdict.metrics["solve_f1"] == pytest.approx(4 / 6)
    assert verdict.metrics["solve_f1_strict"] == pytest.approx(4 / 6)
    assert judge_trajectory(task("solve", outputs={"find": ["Rome"]}), run).outcome == pytest.approx(2 / 4)


def test_parts_of_an_expected_answer_are_found_anywhere_without_commas() -> None:
    outputs = {"list": ["Israel, Sudan", "1,024"]}
    metrics = solve_metrics(trajectory(step("list", "SUDAN and israel"), step("list", "total: 1024")), outputs)
    assert metrics["solve_f1"] == 1
    assert solve_metrics(trajectory(step("list", "Sudan only")), outputs)["solve_r"] == 0
    assert solve_metrics(trajectory(step("other", "Israel Sudan")), outputs)["solve_r"] == 0


def test_one_call_solves_one_pending_answer_and_each_answer_once() -> None:
    outputs = {"f": ["a1", "a2"]}
    assert solve_metrics(trajectory(step("f", "a1 a2")), outputs)["solve_r"] == 0.5
    assert solve_metrics(trajectory(step("f", "a1"), step("f", "a1")), outputs)["solve_r"] == 0.5
    assert solve_metrics(trajectory(step("f", "a2"), step("f", "a1")), outputs)["solve_r"] == 1


@pytest.mark.parametrize(
    ("output", "expected", "strict"),
    [
        ("no", "no", True),
        ("I don't know", "no", False),
        ('{"age": 12}', "12", True),
        ("[12,13]", "13", True),
        ("age=12.", "12", True),
        ("12.0", "12", True),
        ("12.5", "12", False),
        ("3.12", "12", False),
        ("15", "5", False),
        ("-12", "12", False),
        ("−12", "12", False),
        ("-12", "-12", True),
        ("x=-12", "-12", True),
        ("12:30", "12", False),
        ("2023-12-05", "2023-12-05", True),
        ("2023-12-05", "12", False),
        ("room F-16", "16", True),
        ("1,024 items", "1024", True),
        ("1024 items", "1,024", True),
        ("Romeo and Juliet", "Rome", False),
        ("ROME, Italy", "rome", True),
        ("Rome and Oslo", "Oslo, Rome", True),
        ("Rome and Oslofjord", "Oslo, Rome", False),
        ("written in C++", "C++", True),
        ("first_name: Ann", "name", False),
        ("他住在北京市", "北京", True),
    ],
)
def test_strict_solve_finds_whole_words_and_numbers(output: str, expected: str, strict: bool) -> None:
    metrics = solve_metrics(trajectory(step("f", output)), {"f": [expected]})
    assert metrics["solve_f1"] == 1
    assert metrics["solve_f1_strict"] == int(strict)
    for judge, outcome in (("solve", float(strict)), ("solve_parity", 1.0)):
        assert (
            judge_trajectory(task(judge, outputs={"f": [expected]}), trajectory(step("f", output))).outcome == outcome
        )


def test_no_calls_have_precision_one_in_parity_and_zero_when_strict() -> None:
    metrics = solve_metrics(trajectory(answer="Rome"), {"f": ["Rome"]})
    assert (metrics["solve_p"], metrics["solve_r"], metrics["solve_f1"]) == (1, 0, 0)
    assert metrics["solve_p_strict"] == 0


@pytest.mark.parametrize(
    "call",
    [
        step("f", "No person named Rome found.", name="Rome"),
        step("f", '{"error": "Invalid name: Rome"}', name="Rome"),
        step("f", '{"message": "no data for rome", "results": []}', query={"names": ["Rome"]}),
        step("f", '{"name": "Rome", "population": "unknown", "unit": "people", "year": 2023}', name="Rome"),
        step("f", '{"details": [{"name": "Rome", "population": 100}]}', name="Rome"),
        step("f", "Rome", error="exception: KeyError 'Rome'", name="Rome"),
    ],
)
def test_an_echo_of_an_argument_solves_nothing_when_strict(call: tuple[ToolCall, ToolResult]) -> None:
    metrics = solve_metrics(trajectory(call), {"f": ["Rome"]})
    assert metrics["solve_f1"] == 1
    assert metrics["solve_f1_strict"] == 0
    assert metrics["solve_p_strict"] == 0


@pytest.mark.parametrize(
    "call",
    [
        step("f", '{"capital": "Rome", "country": "Italy"}', name="Rome"),
        step("f", '{"result": "Rome", "note": "no error"}', name="Ann"),
        step("f", "The larger of 3 and Rome is Rome", a=3, b="Rome"),
    ],
)
def test_a_real_finding_counts_when_strict_though_it_repeats_an_argument(call: tuple[ToolCall, ToolResult]) -> None:
    assert solve_metrics(trajectory(call), {"f": ["Rome"]})["solve_f1_strict"] == 1


def test_malformed_calls_and_calls_that_never_ran_count_as_calls() -> None:
    malformed = (ToolCall("f", {}, raw="{", error="not JSON"), ToolResult("not JSON", "malformed: not JSON"))
    run = trajectory(malformed, step("f", "Rome"), (ToolCall("f", {}), None))
    assert solve_metrics(run, {"f": ["Rome"]})["solve_p"] == pytest.approx(1 / 3)


def test_enormous_arguments_and_outputs_are_read_in_linear_time() -> None:
    call = step("f", "not found: " + "rome " * 200_000, names=[f"rome{n}" for n in range(100_000)])
    assert solve_metrics(trajectory(call), {"f": ["Rome"]})["solve_f1_strict"] == 0
    nested: object = "Rome"
    for _ in range(50_000):
        nested = [nested]
    assert solve_metrics(trajectory(step("f", "no Rome found", x=nested)), {"f": ["Rome"]})["solve_f1_strict"] == 0
