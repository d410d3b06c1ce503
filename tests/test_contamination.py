"""Overlap between two task sets."""

import pytest

from rewright.contamination import Overlap, find_overlaps, question_text
from rewright.records import Task


def task(name: str, text: str) -> Task:
    return Task(id=name, messages=({"role": "system", "content": "Be brief."}, {"role": "user", "content": text}))


LONG = "Natalia sold clips to forty eight of her friends in April and then she sold half as many clips in May"


def test_the_same_question_is_found_whatever_its_case_and_punctuation() -> None:
    train = [task("a", "Something else"), task("b", "How many   clips, did Natalia sell?")]
    test = [task("t", "how many clips did natalia SELL")]
    assert find_overlaps(train, test) == [Overlap("t", "b", "exact", 1.0)]


def test_short_questions_that_differ_in_a_number_are_not_the_same() -> None:
    assert find_overlaps([task("a", "What is 2 + 3?")], [task("t", "What is 2 + 4?")]) == []


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


def test_many_variants_of_one_question_in_the_training_set_do_not_hide_it() -> None:
    train = [task(f"v{n}", f"{LONG} {n}") for n in range(15)] + [
        task(f"o{n}", f"Other question {n}") for n in range(20)
    ]
    (overlap,) = find_overlaps(train, [task("t", LONG)])
    assert overlap.train_id == "v0"


def test_only_user_messages_are_compared_and_empty_ones_never_match() -> None:
    assert question_text(task("a", "x")) == "x"
    assert find_overlaps([task("a", "")], [task("t", "")]) == []
    assert find_overlaps([], [task("t", LONG)]) == []


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match="n is 0"):
        find_overlaps([], [], n=0)
    with pytest.raises(ValueError, match="threshold is 2"):
        find_overlaps([], [], threshold=2)
