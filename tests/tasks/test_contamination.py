"""Overlap between two task sets."""

import json
import sys
from pathlib import Path

import msgspec
import pytest

from rewright.cli import main as cli
from rewright.core.records import FollowUp, Task
from rewright.tasks.contamination import Overlap, find_overlaps, question_text


def task(name: str, text: str) -> Task:
    return Task(id=name, messages=({"role": "system", "content": "Be brief."}, {"role": "user", "content": text}))


LONG = "Natalia sold clips to forty eight of her friends in April and then she sold half as many clips in May"


def test_the_same_question_is_found_whatever_its_case_and_punctuation() -> None:
    train = [task("a", "Something else"), task("b", "How many   clips, did Natalia sell?")]
    test = [task("t", "how many clips did natalia SELL")]
    assert find_overlaps(train, test) == [Overlap("t", "b", "exact", 1.0)]


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("How many cl\u00adips did Nata\u200blia sell?", "How many clips did Natalia sell?"),
        ("**How** many *clips* did __Natalia__ sell?", "How many clips did Natalia sell?"),
        ("Is \u22125 < 4?", "Is -5 < 4?"),
        ("What is 2×3 ÷ 4?", "What is 2 * 3 / 4?"),
        ("小明有3个苹果，又买了5个。", "小明有 3 个苹果, 又买了 5 个"),
        ("Сколько яблок у Маши?", "сколько яблок у маши"),
    ],
)
def test_the_same_question_in_another_spelling_is_the_same(train: str, test: str) -> None:
    assert [one.kind for one in find_overlaps([task("a", train)], [task("t", test)])] == ["exact"]


def test_questions_in_scripts_without_spaces_are_found_by_their_character_runs() -> None:
    question = "小明有三个苹果，他又买了五个苹果，请问他现在一共有多少个苹果？"
    (overlap,) = find_overlaps([task("a", f"请回答下面的问题：{question}谢谢！")], [task("t", question)])
    assert (overlap.kind, overlap.share) == ("n-gram", 1.0)
    assert find_overlaps([task("a", "小红有三本书，昨天借给同学两本，还剩几本？")], [task("t", question)]) == []


def test_a_greeting_is_no_evidence() -> None:
    assert find_overlaps([task("a", "Hi"), task("b", "你好")], [task("t", "hi!"), task("u", "你好")]) == []
    assert (
        len(
            find_overlaps(
                [task("a", "2+3?"), task("b", "Who are you?")], [task("t", "2 + 3"), task("u", "who are you")]
            )
        )
        == 2
    )


def test_short_questions_that_differ_in_a_number_are_not_the_same() -> None:
    assert find_overlaps([task("a", "What is 2 + 3?")], [task("t", "What is 2 + 4?")]) == []


def test_questions_that_differ_in_an_operation_or_a_sign_are_not_the_same() -> None:
    train = [task("a", "What is 2 + 3?"), task("b", "Is -5 < 4?")]
    assert find_overlaps(train, [task("t", "What is 2 - 3?"), task("u", "Is 5 < 4?"), task("v", "Is -5 > 4?")]) == []
    same = [task("t", "what is 2+3"), task("u", "Is -5<4")]
    assert [one.kind for one in find_overlaps(train, same)] == ["exact", "exact"]


def test_a_question_inside_a_longer_one_is_found_by_its_word_runs() -> None:
    (overlap,) = find_overlaps(
        [task("x", "Unrelated words"), task("a", f"Please answer. {LONG}. Thanks!")], [task("t", LONG)]
    )
    assert (overlap.train_id, overlap.kind, overlap.share) == ("a", "n-gram", 1.0)
    assert "100%" in str(overlap)


def test_half_a_question_counts_by_the_threshold() -> None:
    words = LONG.split()
    train = [task("a", " ".join(words[:14]))]
    (overlap,) = find_overlaps(train, [task("t", LONG)], threshold=0.3)
    assert overlap.share == pytest.approx(7 / (len(words) - 7))
    assert find_overlaps(train, [task("t", LONG)], threshold=0.9) == []


def test_a_preamble_that_all_questions_share_is_no_overlap() -> None:
    preamble = "You are given some tools and must call them to answer the question that follows here"
    train = [task(f"a{n}", f"{preamble} about thing number {n}") for n in range(20)]
    test = [task(f"t{n}", f"{preamble} regarding item number {n + 100}") for n in range(20)]
    assert find_overlaps(train, test) == []


def test_the_preamble_of_one_source_in_a_pool_of_several_is_no_overlap() -> None:
    preamble = "You are given some tools and must call them to answer the question that follows here"
    train = [task(f"a{n}", f"{preamble} about thing number {n}") for n in range(20)]
    test = [task(f"t{n}", f"{preamble} regarding item number {n + 100}") for n in range(20)]
    other = [msgspec.structs.replace(task(f"o{n}", f"Unrelated {n}"), source="other") for n in range(2000)]
    padding = [task(f"p{n}", f"Another {n}") for n in range(30)]
    assert find_overlaps([*train, *padding], [*test, *other]) == []
    same = msgspec.structs.replace(test[3], id="same")
    assert [one.test_id for one in find_overlaps([*train, same, *padding], [*test, *other])] == ["t3"]


def test_many_variants_of_one_question_in_the_training_set_do_not_hide_it() -> None:
    train = [task(f"v{n}", f"{LONG} {n}") for n in range(15)] + [
        task(f"o{n}", f"Other question {n}") for n in range(20)
    ]
    (overlap,) = find_overlaps(train, [task("t", LONG)])
    assert overlap.train_id == "v0"


def test_only_user_messages_are_compared_and_empty_ones_never_match() -> None:
    assert question_text(task("a", "x")) == "x"
    later = FollowUp(({"role": "assistant", "content": "no"}, {"role": "user", "content": "y"}))
    assert question_text(msgspec.structs.replace(task("a", "x"), follow_ups=(later,))) == "x\ny"
    assert find_overlaps([task("a", "")], [task("t", "")]) == []
    assert find_overlaps([], [task("t", LONG)]) == []


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match="n is 0"):
        find_overlaps([], [], n=0)
    with pytest.raises(ValueError, match="threshold is 2"):
        find_overlaps([], [], threshold=2)


def test_the_command_compares_sets_of_two_formats(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "train.jsonl").write_text(json.dumps({"question": LONG + "?", "answer": "72\n#### 72"}) + "\n")
    (tmp_path / "test.jsonl").write_text(json.dumps({"problem": LONG.upper(), "answer": "72"}) + "\n")

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["rewright", "validate", str(tmp_path / "train.jsonl"), *arguments])
        try:
            cli.main()
        except SystemExit as leave:
            return int(leave.code or 0), *capsys.readouterr()
        return 0, *capsys.readouterr()

    against = ("--against", str(tmp_path / "test.jsonl"), "--against-format", "math")
    code, output, errors = run("--format", "gsm8k", *against, "--json")
    assert code == 0
    assert "overlap: test task math-0 asks the same as training task gsm8k-0" in errors
    assert json.loads(output)["overlaps"] == 1
    code, _, errors = run("--format", "gsm8k", "--against-format", "math")
    assert code == 2
    assert "--against-format needs --against" in errors
