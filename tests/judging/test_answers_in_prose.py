"""Answers in prose, as chat models write them: which part is compared, and what it is judged."""

from __future__ import annotations

import pytest

from rewright.core.errors import InputError
from rewright.core.records import Gold, Task, Trajectory, Turn
from rewright.judging import judge_trajectory
from rewright.judging.extraction import find_extractor

QUESTION = {"role": "user", "content": "How many?"}


def compared(
    text: str, gold: str, *, judge: str = "exact", extractor: str | None = "judge"
) -> tuple[float, str | None]:
    """The outcome of an answer, and the part that was compared."""
    task = Task(id="t", messages=(QUESTION,), gold=Gold(answers=(gold,)), judge=judge, extractor=extractor)
    trajectory = Trajectory(
        id="a", task_id="t", stage="synth", index=0, turns=(Turn(text=text),), stop_reason="answered", answer=text
    )
    verdict = judge_trajectory(task, trajectory)
    return verdict.outcome, verdict.answer


NUMBERS = [
    "12", "12.", "**12**", "*12*", "_12_", "`12`", "12.0", "12 apples", "12kg", "12%", "$12", "The answer is 12.",
    "The final answer is **12**.", "**Answer:** 12\n\n1. Count the boxes.\n2. Count the apples.", "Answer = 12",
    "**Final Answer**\n\n12", "## Answer\n\n**12**", "3 + 9 is 12\n#### 12", "Therefore: $\\boxed{12}$, for 3 boxes.",
    "3 + 9 = 12", "The answer is 3 * 4 = 12.", "The answer is 12 = 3 * 4.", "The answer is 12 (3 boxes of 4).",
    "The answer is 12, because 3 times 4 is 12. I hope this answer is helpful for 2 people!",
    "I think the answer is 10. Wait. The answer is 12.", "The answer isn't 10, it is 12.",
    "The answer is not 10 but 12.", "1. 3 + 4 = 7\n2. 7 + 5 = 12",
    "Steps:\n1. Add 3 and 9\n2. Done\n\nShe has 12 apples",
    "12\n\nI counted 3 boxes of 4.", "She has **12** apples left from 20.", "12 apples (3 × 4).",
    "**Step 1:** 3 + 4 = 7\n**Step 2:** the total is 12", "Ada has **3** and Bob has **9**, so together 12.",
    "On 2024-03-01 at 10:30 she had 12 apples", "There are 12 H2O molecules", "答案是12。", "$$x = 12$$", "\\(12\\)",
    "Ada has 12 apples because she bought 3 boxes of 4.", "The answer to question 3 is 12.", "\\frac{24}{2}",
    "The answer comes out to 12", "The answer would be 12 apples in total.", "1.2 \\times 10^1",
    "She has 12 apples. Would you like to hear more about the other 3 children?",
    "She has 12 apples!\n\nLet me know if you have 2 more questions! 😊", "Is it 12?", "It is 12. Shall I check 11? 🎉",
]  # fmt: skip


@pytest.mark.parametrize("judge", ["exact", "qa", "math"])
@pytest.mark.parametrize("text", NUMBERS)
def test_a_number_is_found_in_prose(text: str, judge: str) -> None:
    outcome, part = compared(text, "12", judge=judge)
    assert outcome == 1.0, part
    assert compared(text, "11", judge=judge)[0] == 0.0


@pytest.mark.parametrize(
    ("text", "gold"),
    [
        ("The total is 1,200 dollars.", "1200"), ("It costs $12.50.", "12.5"), ("It costs \\$12.50.", "12.50"),
        ("12{,}000", "12000"), ("12\\,000 people", "12000"), ("5 × 10^{3} m", "5000"), ("So −3.", "-3"),
        ("x = -3", "-3"),
        ("15 - 3", "3"), ("He owes -$3.50", "-3.5"), ("$x = \\frac{1}{2}$", "0.5"), ("1 1/2 cups", "1.5"),
        ("There are 2**3 = 8", "8"), ("It is minus 5 degrees.", "-5"), ("It is **minus 5** degrees", "-5"),
        ("The answer is negative 3.", "-3"), ("Minus 5.", "-5"), ("What is left of x minus 5", "5"),
        ("10 minus 5", "5"),
    ],
)  # fmt: skip
def test_notation_of_numbers(text: str, gold: str) -> None:
    assert compared(text, gold)[0] == 1.0


@pytest.mark.parametrize(
    ("text", "gold", "part"),
    [
        ("The answer is Paris.", "Paris", "Paris"),
        ("The capital of France is **Paris**.", "Paris", "Paris"),
        ("The capital of France is Paris.", "Paris", "Paris"),
        ("The answer is St. Louis. Let me know if you want more.", "St. Louis", "St. Louis"),
        ("The answer is J. K. Rowling. She wrote it.", "J. K. Rowling", "J. K. Rowling"),
        ("Answer: New York City\n\nLet me know!", "New York City", "New York City"),
        ("The answer is (B).", "B", "B"),
        ("B) Paris", "B", "B"),
        ("I would pick option B because A is wrong", "B", "B"),
        ("Yes, it is.", "yes", "Yes"),
        ("**No** - because she left", "no", "No"),
        ("It happened on 2024-03-01, a Friday.", "2024-03-01", "2024-03-01"),
        ("It costs $12.50 in total.", "$12.50", "$12.50"),
        ("She has 12 apples left.", "12 apples", "12 apples"),
        ("It is 12% of all.", "12%", "12%"),
        ("It is 12 percent of all.", "12%", "12%"),
        ("The capital is Paris. Let me know if you need more!", "Paris", "Paris"),
        ("The capital of France is Paris 😊", "Paris", "Paris"),
    ],
)
@pytest.mark.parametrize("judge", ["exact", "qa"])
def test_the_form_of_the_gold_answer_decides(text: str, gold: str, part: str, judge: str) -> None:
    assert compared(text, gold, judge=judge) == (1.0, part)


@pytest.mark.parametrize(
    ("text", "gold"),
    [
        ("The answer is $\\frac{1}{2}$.", "\\frac{1}{2}"),
        ("So $x = \\frac{1}{2}$ is the solution that we get.", "0.5"),
        ("In the end, we get \\[ x^2 + 1 \\] after 3 steps.", "x^2+1"),
        ("The answer is \\(\\frac{\\pi}{2}\\).", "\\pi/2"),
        ("We find \\boxed{\\frac{\\pi}{2}}, not 3.", "\\pi/2"),
        ("The probability is 25%.", "0.25"),
        ("The probability is 25 percent.", "1/4"),
        ("The probability is 25%.", "25"),
    ],
)
def test_mathematics_in_prose(text: str, gold: str) -> None:
    assert compared(text, gold, judge="math")[0] == 1.0


@pytest.mark.parametrize(
    ("text", "extractor", "part"),
    [
        ('{"answer": 12}', "json", "12"),
        ('Here it is:\n```json\n{"answer": "12", "why": {"x": 1}}\n```', "json", "12"),
        ('{"result": {"total": 12}} and {"other": 1}', "json.result.total", "12"),
        ("3 boxes hold 12", "last_number", "12"),
        ("\\boxed{12} for 3 boxes", "boxed", "12"),
        ("12", "text", "12"),
    ],
)
def test_a_task_names_its_extractor(text: str, extractor: str, part: str) -> None:
    assert compared(text, "12", extractor=extractor) == (1.0, part)


def test_nothing_found_is_wrong_and_says_so() -> None:
    task = Task(id="t", messages=(QUESTION,), gold=Gold(answers=("12",)), extractor="json")
    trajectory = Trajectory(
        id="a", task_id="t", stage="s", index=0, turns=(), stop_reason="answered", answer="The answer is 12."
    )
    verdict = judge_trajectory(task, trajectory)
    assert (verdict.outcome, verdict.answer) == (0.0, None)
    assert verdict.reason == "the extractor json finds nothing to compare in 'The answer is 12.'"


def test_without_an_extractor_an_answer_is_compared_as_it_is() -> None:
    assert compared("12 apples", "12", extractor=None) == (0.0, "12 apples")
    assert compared("She has 12 apples, not \\boxed{11}", "11", extractor=None) == (1.0, "11")


def test_an_unknown_extractor_is_an_error_with_the_known_ones() -> None:
    with pytest.raises(InputError, match="unknown extractor 'last_numbr': did you mean 'last_number'"):
        find_extractor("last_numbr")
    with pytest.raises(InputError, match="code, which runs only if you allow its package"):
        find_extractor("os.path:join", ())


@pytest.mark.parametrize("piece", ["(", "a", "1", "answer is ", "{", '{"a":', "*", "$", "\\[", " ", "1/", "0,000"])
def test_a_long_answer_is_read_in_linear_time(piece: str) -> None:
    """Quadratic time would take minutes on so many characters."""
    text = piece * 100_000
    for name in ("auto", "boxed", "json", "last_number", "number_or_text"):
        for gold in ("7", "Rome", "yes"):
            find_extractor(name)(text, [gold])
