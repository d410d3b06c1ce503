"""The judge `math` on a table of pairs, in both directions, and on golds of MATH, GSM8K, AIME and AMC as published."""

import json
import os
import re
from pathlib import Path

import pytest

from rewright.core.answer_text import boxed, final_answer
from rewright.dialects.tags_format import validate_text
from rewright.judging import judge_answer
from rewright.judging.mathematics import unreadable

HERE = Path(__file__).parent
SHARED = Path(os.environ.get("REWRIGHT_SHARED_DATA", HERE.parents[2].parent / "shared" / "data"))
QUESTIONS = SHARED / "autotraj_questions"


def pairs(name: str) -> list[tuple[str, str]]:
    lines = (HERE / name).read_text("utf-8").splitlines()
    return [(line.split("  ~  ")[0], line.split("  ~  ")[1]) for line in lines if line and not line.startswith("# ")]


@pytest.mark.parametrize(("left", "right"), pairs("math_accepted.txt"))
def test_equal_answers_are_accepted_whichever_is_the_gold(left: str, right: str) -> None:
    for answer, gold in ((left, right), (right, left)):
        judgement = judge_answer("math", answer, [gold])
        assert judgement.outcome == 1, judgement.reason


@pytest.mark.parametrize(("left", "right"), pairs("math_rejected.txt"))
def test_different_answers_are_rejected_whichever_is_the_gold(left: str, right: str) -> None:
    for answer, gold in ((left, right), (right, left)):
        judgement = judge_answer("math", answer, [gold])
        assert judgement.outcome == 0, judgement.reason


def golds(name: str) -> list[str]:
    path = QUESTIONS / name
    if not path.exists():
        pytest.skip(f"no {path}")
    return [row["answer"].removeprefix("{").removesuffix("}") for row in json.loads(path.read_text("utf-8"))]


SPELLINGS = [
    "{}.", "${}$", "${}$.", "${}.$", r"\({}\)", r"\[{}\]", r"\boxed{{{}}}", "The answer is ${}$.", "**{}**", " {} ",
    r"The final answer is \boxed{{{}}}.", r"\boxed{{{}", "{{{}}}", r"\displaystyle {}",
]  # fmt: skip


@pytest.mark.parametrize(
    "name", ["math_qa_pairs_test.json", "gsm8k_qa_pairs_test.json", "aime24_qa_pairs.json", "amc23_qa_pairs_test.json"]
)
def test_published_golds_are_read_in_full_and_accepted_in_every_spelling(name: str) -> None:
    for gold in golds(name):
        assert unreadable(gold) is None, gold
        spelled = [spelling.format(gold) for spelling in SPELLINGS]
        spelled.append(gold.replace(r"\frac", r"\dfrac"))
        spelled.append(gold.replace("(", "（").replace(")", "）").replace(",", "，"))
        spelled.append(gold.translate(str.maketrans("0123456789-", "０１２３４５６７８９−")))
        spelled.append(gold.replace(r"\sqrt", "√").replace(r"\pi", "π").replace(r"\infty", "∞"))
        for answer in spelled:
            for one, other in ((answer, gold), (gold, answer)):
                assert judge_answer("math", one, [other]).outcome == 1, (one, other)


def test_a_number_changed_in_a_published_gold_is_wrong() -> None:
    for gold in golds("math_qa_pairs_test.json"):
        changed = re.sub(r"[0-9](?!.*[0-9])", lambda digit: str((int(digit[0]) + 1) % 10), gold, flags=re.DOTALL)
        if changed != gold:
            assert judge_answer("math", changed, [gold]).outcome == 0, (changed, gold)
            assert judge_answer("math", gold, [changed]).outcome == 0, (changed, gold)


def test_boxes_side_by_side_are_one_answer() -> None:
    assert boxed(r"$\boxed{1}$ or $\boxed{2}$") == "1 or 2"
    assert boxed(r"\boxed{1}, \boxed{2} and \boxed{3}.") == "1, 2 and 3"
    assert boxed(r"\boxed{7}. Checking: \boxed{7}") == "7"
    assert boxed(r"first \boxed{1}, but that is too small; it is \boxed{2}") == "2"


def test_a_box_that_is_never_closed_holds_the_rest_of_its_line() -> None:
    assert final_answer("so \\boxed{12\nand then text") == "12"
    assert final_answer(r"\boxed{" + "x" * 300) == r"\boxed{" + "x" * 300
    assert not validate_text(r"<think>t</think><answer>\boxed{12</answer>").valid  # AutoTraj's format asks for it whole


@pytest.mark.parametrize(
    ("gold", "why"),
    [
        (r"\frac{1}{2", "only a part of it could be parsed"),
        (r"x \equiv 3 \pmod{7}", "only a part of it could be parsed"),
        (r"[-\infty, 3)", "closed at infinity"),
        ("between 3 and 5", "no number or formula, or several"),
        ("9" * 3000, "longer than"),
        ("9^{9^{9^9}}", "too large"),
    ],
)
def test_a_gold_that_cannot_be_read_in_full_says_why(gold: str, why: str) -> None:
    assert why in (unreadable(gold) or "")
    assert judge_answer("math", gold, [gold]).outcome == 1


@pytest.mark.parametrize("gold", ["5", r"\frac{1}{2}", "Paris", r"5\text{ cm}", "x=5,y=3", "4:30 p.m.", r"2^{100}"])
def test_a_gold_that_is_read_in_full_needs_no_warning(gold: str) -> None:
    assert unreadable(gold) is None
