"""The tags dialect's format: what is valid, and the reason for what is not."""

import pytest

from rewright.core.records import ToolCall, ToolResult, Turn
from rewright.dialects.tags_format import validate_text, validate_turns

GOOD = (
    "<think>I need the date.</think><search>treaty</search>\n<result>1648</result>\n"
    "<think>Now compute.</think><code>print(1648 * 2)</code><result>3296</result><answer>It is \\boxed{3296}.</answer>"
)


def test_a_whole_trajectory_is_valid() -> None:
    assert validate_text(GOOD).valid
    assert validate_text(GOOD).reasons == ()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no think block"),
        ("<think>a</think>", "no answer"),
        ("<answer>\\boxed{1}</answer>", "no think block"),
        ("<think>a<answer>\\boxed{1}</answer>", "<think> is not closed"),
        ("a</think><answer>\\boxed{1}</answer>", "</think> has no opening tag"),
        ("<think>a<think>b</think></think><answer>\\boxed{1}</answer>", "<think> inside <think>"),
        ("<think>a</think><answer>1</answer>", "the answer has no non-empty \\boxed{}"),
        ("<think>a</think><answer>\\boxed{ }</answer>", "the answer has no non-empty \\boxed{}"),
        ("<think>a</think>\\boxed{1}<answer>1</answer>", "the answer has no non-empty \\boxed{}"),
        ("<think>a</think><answer>\\boxed{1}", "<answer> is not closed"),
        (GOOD + "<answer>\\boxed{1}</answer>", "more than one <answer>"),
        (GOOD + "by the way", "text follows </answer>"),
        (GOOD + "<search>q</search><result>r</result>", "<search> follows </answer>"),
        ("<think>a</think><search>q</search><answer>\\boxed{1}</answer>", "</search> is not followed by its result"),
        ("<think>a</think><search>q</search>", "</search> is not followed by its result"),
        ("<think>a</think><code>x<answer>\\boxed{1}</answer>", "<code> is not closed"),
        ("<think>a</think><result>r</result><answer>\\boxed{1}</answer>", "a result without a call"),
        ("<think>a</think><search>q</search><result>r<answer>\\boxed{1}</answer>", "<result> is not closed"),
    ],
)
def test_each_fault_has_its_reason(text: str, reason: str) -> None:
    report = validate_text(text)
    assert not report.valid
    assert reason in report.reasons


def test_tags_inside_a_result_a_thought_or_code_are_not_read() -> None:
    assert validate_text(
        "<think>I could use <search> here</think><code>print('<result>')</code>"
        "<result><answer>\\boxed{7}</answer></think></result><answer>\\boxed{1}</answer>"
    ).valid


def turn(text: str, *results: str) -> Turn:
    return Turn(
        text=text, calls=tuple(ToolCall("search", {}) for _ in results), results=tuple(ToolResult(r) for r in results)
    )


def test_turns_are_checked_against_the_recorded_results() -> None:
    first = "<think>a</think><search>q</search>"
    last = turn("<answer>\\boxed{1}</answer>")
    assert validate_turns([turn(first, "</think><answer>"), last]).valid
    assert "</search> is not followed by its result" in validate_turns([turn(first), last]).reasons
    invented = validate_turns([turn(first + "<result>r</result>"), last])
    assert "the model wrote a <result> itself" in invented.reasons


def test_a_megabyte_of_tags_is_read_at_once() -> None:
    for tag in ("<think>", "</think>", "<result>", "<search></search>", "<answer>"):
        assert not validate_text(tag * (1_000_000 // len(tag))).valid


def test_tags_named_in_a_turn_are_content() -> None:
    """A thought or a program may name any tag: only what stands outside of them is read."""
    first = "<think>A <result> is what <answer> needs.</think><python>print('<result>')</code>"
    last = turn("<think>ok</think><answer>\\boxed{1}</answer>")
    assert validate_turns([turn(first, "<result>"), last]).valid
    assert not validate_turns([turn(first), last]).valid


def test_a_thought_that_the_prompt_opened_is_paired() -> None:
    last = Turn(text="a</think><answer>\\boxed{1}</answer>", opening="<think>")
    assert validate_turns([last]).valid
    assert "</think> has no opening tag" in validate_turns([Turn(text=last.text)]).reasons
