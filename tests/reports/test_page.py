"""The page of a run: everything that is known of its trajectories, nothing that runs or is loaded from elsewhere."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import msgspec
import pytest

from rewright.core.errors import InputError, StorageError
from rewright.core.records import (
    Failure,
    FollowUp,
    Gold,
    Provenance,
    Quality,
    Repair,
    Task,
    ToolCall,
    ToolResult,
    ToolSpec,
    Trajectory,
    Turn,
    Verdict,
)
from rewright.pipeline.run_directory import Run
from rewright.recipe.schema import Recipe
from rewright.reports.cards import MAX_TEXT_CHARACTERS
from rewright.reports.page import write_page
from rewright.reports.report import write_report
from rewright.reports.summary import report
from rewright.reports.table import table

ATTACK = "<script>alert('tool')</script><img src=x onerror=alert(1)>"
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
ADA = ToolCall("lookup", {"name": "Ada"}, '{"name": "lookup", "arguments": {"name": "Ada"}}')


class Seen(HTMLParser):
    """What a browser would make of the page: elements, their attributes, and the text of each card."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.cards, self.depth = [], [], 0
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.elements.append((tag, values))
        if tag == "details":
            self.depth += 1
            if values.get("class") == "card":
                self.cards.append([values["data-labels"].split(), ""])

    def handle_endtag(self, tag):
        self.depth -= tag == "details"

    def handle_data(self, data):
        if self.depth and self.cards:
            self.cards[-1][1] += data

    def all(self, tag):
        return [values for name, values in self.elements if name == tag]


def trajectory(key, task_id, *, answer="36", call=ADA, result="36", parent=None, index=0, **more):
    turns = (
        Turn(text=f"<think>I look</think><tool_call>{call.raw}</tool_call>", calls=(call,), results=(result,)),
        Turn(text=f"<think>Done</think><answer>{answer}</answer>"),
    )
    turns = tuple(
        Turn(turn.text, calls=turn.calls, results=tuple(ToolResult(str(one)) for one in turn.results)) for turn in turns
    )
    return Trajectory(
        id=key, task_id=task_id, stage="synth", index=index, turns=turns, stop_reason="answered", answer=answer,
        provenance=Provenance(model="some-model", parent=parent), **more,
    )  # fmt: skip


def task(key, question="How old is Ada?", gold=True):
    schema = {"type": "function", "function": {"name": "lookup", "parameters": {}}}
    return Task(
        id=key,
        messages=({"role": "system", "content": "Be brief."}, {"role": "user", "content": question}),
        tools=(ToolSpec(schema=schema),),
        gold=Gold(answers=("36",), calls=(ADA,)) if gold else Gold(),
    )


def quality(key, selected, total=1.0):
    return Quality(
        confidence=1.0, length=0.75, repetition=1.0, total=total, trajectory_id=key, selected=selected,
        extra={"tool_errors": 0.25},
    )  # fmt: skip


@pytest.fixture
def run(tmp_path):
    """One task with a kept and a repaired candidate, one with a hard and a low one."""
    run = Run.create(tmp_path / "a-run", Recipe(), resume=False)
    fill = [
        (run.tasks, [task("t1"), task("t2", "How tall is <b>Ben</b>?")]),
        (
            run.trajectories,
            [
                trajectory("kept-1", "t1"),
                trajectory("wrong-1", "t1", answer="37", result=ATTACK, index=1),
                trajectory("hard-2", "t2", answer="no idea"),
                trajectory("low-2", "t2", answer="</details><script>alert('model')</script>", index=1),
                trajectory("fix-1", "t1", parent="wrong-1"),
                trajectory("fix-2", "t2", answer="nothing", parent="hard-2"),
            ],
        ),
        (
            run.verdicts,
            [
                Verdict(trajectory_id="kept-1", outcome=1.0, reason="equal", metrics={"solve_f1": 1.0}),
                Verdict(trajectory_id="wrong-1", outcome=0.0, reason="'37' is not the gold answer '36'"),
                Verdict(trajectory_id="hard-2", outcome=0.0, reason="no number"),
                Verdict(trajectory_id="low-2", outcome=1.0, reason="equal"),
                Verdict(trajectory_id="fix-1", outcome=1.0, reason="equal now"),
                Verdict(trajectory_id="fix-2", outcome=0.0, reason="still no number"),
            ],
        ),
        (
            run.qualities,
            [
                quality("kept-1", "kept"),
                quality("wrong-1", "wrong", 0.5),
                quality("hard-2", "wrong"),
                quality("low-2", "low"),
            ],
        ),
        (
            run.repairs,
            [
                Repair(
                    original_id="wrong-1", repaired_id="fix-1", task_id="t1", mode="wrong_answer", accepted=True,
                    reason="correct, quality 0.93", tokens=120,
                ),
                Repair(
                    original_id="hard-2", repaired_id="fix-2", task_id="t2", mode="wrong_answer", accepted=False,
                    reason="wrong: still no number", attempts=2,
                ),
            ],
        ),
    ]  # fmt: skip
    for file, records in fill:
        for record in records:
            file.append(record)
        file.close()
    row = {"success": 0.4, "low": 0.25, "high": 0.58, "tasks": 30, "solve_f1": 0.55, "calls": 2.1, "seconds": 21.7}
    run.set_metrics("eval_base", [row])
    return run


def seen(run, **options):
    return Seen(write_page(run, None, **options).read_text("utf-8"))


def card(page, key):
    return next((labels, text) for labels, text in page.cards if f"Candidate {key}" in text)


def test_every_candidate_stands_with_its_verdict_its_quality_its_repair_and_its_credit(run):
    page = seen(run)
    labels, text = card(page, "wrong-1")
    assert labels == ["wrong", "repaired"]
    for words in (
        "How old is Ada?", "I look", 'lookup(name: "Ada")', "'37' is not the gold answer '36'", "tool_errors 0.25",
        "0.500", "Repair fix-1", "accepted: correct, quality 0.93", "120 tokens", "equal now", "some-model",
        "gold answer 36",
    ):  # fmt: skip
        assert words in text, words
    assert {tuple(labels) for labels, _ in page.cards} == {
        ("kept",), ("wrong", "repaired"), ("wrong", "hard"), ("low",),
    }  # fmt: skip
    assert "rejected: wrong: still no number" in card(page, "hard-2")[1]
    pictures = [values for values in page.all("svg") if "viewbox" in values]
    assert len(pictures) == 6  # four candidates and two repairs


def test_advantages_are_those_of_the_group_and_a_repair_has_rewards_only(run):
    text = card(seen(run), "wrong-1")[1]
    candidate, repair = text[text.index("Credit of every turn") :].split("Repair", 1)
    # R is 2 and 1: normalised ±0.71. The last turns' rewards, 1 and 0, too; the first turns' returns are 1.9 and 1.
    assert "advantage -0.7071" in candidate
    assert "advantage" not in repair
    assert "reward 1.0000" in repair


def test_what_tools_models_and_data_sets_wrote_is_text(run):
    path = write_page(run, None)
    page = Seen(path.read_text("utf-8"))
    assert len(page.all("script")) == 1
    assert page.all("img") == [] and page.all("b") != []
    assert all(not name.startswith("on") for _, values in page.elements for name in values)
    assert ATTACK in card(page, "wrong-1")[1]
    assert "</details><script>alert('model')</script>" in card(page, "low-2")[1]
    assert "How tall is <b>Ben</b>?" in card(page, "hard-2")[1]


def test_only_the_page_s_own_script_and_style_may_run_and_nothing_is_loaded(run):
    (run.path / "learning_curves.png").write_bytes(PIXEL)
    text = write_page(run, None).read_text("utf-8")
    page = Seen(text)
    policy = next(values["content"] for values in page.all("meta") if "http-equiv" in values)
    assert policy.startswith("default-src 'none'; img-src data:;")
    for tag in ("script", "style"):
        content = re.search(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)[1]
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert [values["src"][:22] for values in page.all("img")] == ["data:image/png;base64,"]
    assert not page.all("link") and not any("href" in values for _, values in page.elements)


def test_filters_name_every_kind_with_its_number(run):
    page = seen(run)
    buttons = [values["data-label"] for values in page.all("button") if "data-label" in values]
    assert buttons == ["", "kept", "low", "wrong", "repaired", "hard"]
    text = (run.path / "report.html").read_text("utf-8")
    assert ">wrong 2</button>" in text and ">hard 1</button>" in text


def test_fewer_examples_are_of_different_kinds(run):
    for number in range(20):
        run.qualities.append(quality(f"more-{number}", "wrong"))
        run.trajectories.append(trajectory(f"more-{number}", "t2", index=2 + number))
    run.qualities.close()
    run.trajectories.close()
    page = seen(run, examples=4)
    assert sorted(tuple(labels) for labels, _ in page.cards) == [
        ("kept",), ("low",), ("wrong", "hard"), ("wrong", "repaired"),
    ]  # fmt: skip
    assert "4 of 24 candidates" in (run.path / "report.html").read_text("utf-8")
    assert seen(run, examples=0).cards == []
    assert len(seen(run, examples=10**18).cards) == 24


def test_curves_are_drawn_without_what_is_no_number(run):
    """A loss that was NaN is stored as null."""
    pytest.importorskip("matplotlib")
    found = report(run)
    for rows in ([{"step": 1, "loss": None}], [{"step": step, "loss": step % 3 or None} for step in range(40)]):
        run.set_metrics("sft", rows)
        (picture,) = write_report(run, found)
        assert picture.stat().st_size > 0


def test_the_table_of_the_run_is_on_the_page(run):
    text = write_page(run, None).read_text("utf-8")
    for words in ("<td>base</td><td>40.0%</td><td>25.0 – 58.0</td>", "<b>4</b> candidates", "<b>1</b> repaired"):
        assert words in text, words


def test_a_run_that_has_only_begun_has_a_page(tmp_path):
    run = Run.create(tmp_path / "new", Recipe(), resume=False)
    assert "No candidates to show" in write_page(run, None).read_text("utf-8")
    run.trajectories.append(trajectory("first", "gone"))
    run.trajectories.close()
    page = seen(run)
    assert [labels for labels, _ in page.cards] == [["unscored"]]
    assert "not judged" in page.cards[0][1] and "no longer in the files of the run" in page.cards[0][1]


def test_trajectories_without_gold_calls_turns_or_luck_are_shown(tmp_path):
    run = Run.create(tmp_path / "odd", Recipe(), resume=False)
    run.tasks.append(task("plain", gold=False))
    run.tasks.append(task("t1"))
    run.trajectories.append(trajectory("no-gold", "plain"))
    run.trajectories.append(
        Trajectory(
            id="broken", task_id="t1", stage="synth", index=0, turns=(), stop_reason="error",
            failure=Failure("engine", "server <gone>"),
        )
    )  # fmt: skip
    bad = ToolCall("", {}, "{not json", "malformed call: no JSON")
    run.trajectories.append(trajectory("malformed", "t1", call=bad, result="Error", index=1))
    for file in (run.tasks, run.trajectories):
        file.close()
    spoken = FollowUp(({"role": "user", "content": "And <b>Ben</b>?"},))
    run.trajectories.append(
        Trajectory(
            id="talk", task_id="t1", stage="synth", index=2, stop_reason="no_answer",
            turns=(Turn("Ada is 36.", follow_up=spoken), Turn("I do not know.")),
        )
    )  # fmt: skip
    run.trajectories.close()
    page = seen(run)
    assert "Ada is 36.user And <b>Ben</b>?turn 2" in card(page, "talk")[1]
    assert "No credit" in card(page, "no-gold")[1]
    assert "engine: server <gone>" in card(page, "broken")[1]
    assert "{not json malformed" in card(page, "malformed")[1]


def test_a_long_text_is_cut_and_says_so(run):
    run.trajectories.append(trajectory("huge", "t1", result="x" * (MAX_TEXT_CHARACTERS + 1234), index=2))
    run.trajectories.close()
    run.qualities.append(quality("huge", "kept"))
    run.qualities.close()
    text = card(seen(run), "huge")[1]
    assert "… (1,234 more characters)" in text
    assert "x" * (MAX_TEXT_CHARACTERS + 1) not in text


def test_a_recipe_of_another_version_is_no_reason_to_show_nothing(run):
    (run.path / "recipe.yaml").write_text("colour: blue\n")
    write_page(run, None)
    assert "unknown key colour" in (run.path / "report.html").read_text("utf-8")


def test_mistakes_are_one_clear_message(run, tmp_path):
    with pytest.raises(InputError, match="expected 0 or more"):
        write_page(run, None, examples=-1)
    with pytest.raises(StorageError, match="cannot write"):
        write_page(run, tmp_path / "no" / "folder" / "page.html")
    (run.path / "verdicts.jsonl").write_text("{}\n" + json.dumps({}) + "\n")
    with pytest.raises(InputError, match=r"verdicts\.jsonl:1"):
        write_page(run, None)


def test_the_page_can_stand_elsewhere(run, tmp_path):
    target = tmp_path / "elsewhere.html"
    assert write_page(run, target) == target
    assert not (run.path / "report.html").exists()


def evaluated(run, label, outcomes):
    """A trajectory and a verdict for each held-out task."""
    trajectories, verdicts = run.evaluation(label)
    for number, outcome in enumerate(outcomes):
        key = f"eval-{label}/e{number}/0/abc"
        one = trajectory(key, f"e{number}", answer="36" if outcome else f"{label} says 7")
        trajectories.append(one)
        verdicts.append(Verdict(trajectory_id=key, outcome=outcome, reason="equal" if outcome else "another number"))
    trajectories.close()
    verdicts.close()


def test_held_out_tasks_stand_with_every_model_those_first_that_tell_them_apart(run):
    for number in range(8):
        run.eval_tasks.append(task(f"e{number}", f"Held-out question {number}?"))
    run.eval_tasks.close()
    evaluated(run, "base", [1.0, 1.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0])
    evaluated(run, "rl", [1.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0, 1.0])
    page = seen(run)
    shown = [text for labels, text in page.cards if labels == ["evaluation"]]
    assert [text[text.index("question ") + 9] for text in shown] == ["2", "7", "0", "1", "3", "4"]
    for words in ("Before training", "After RL", "base says 7", "right, outcome 1: equal", "reward 1.0000"):
        assert words in shown[0], words
    assert "advantage" not in shown[0], "no group was rolled out here"


def test_rollouts_of_the_first_and_the_last_step_stand_as_a_group_with_the_weight_of_calls(tmp_path):
    recipe = msgspec.convert({"rl": {"call_weight": 0.5}}, Recipe)
    run = Run.create(tmp_path / "rl-run", recipe, resume=False)
    for key in ("t1", "t2"):
        run.tasks.append(task(key, f"Question of {key}?"))
    for step in range(3):
        for place, (key, answer) in enumerate([("t1", "7"), ("t1", "7"), ("t2", "36"), ("t2", "7")]):
            run.rollouts.append(trajectory(f"rl/{key}/{step}/{place}", key, answer=answer, index=place))
    run.tasks.close()
    run.rollouts.close()
    page = seen(run)
    first, last = [text for labels, text in page.cards if labels == ["rollout"]]
    assert "step 1 of 3, 2 of 2 rollouts" in first and "step 3 of 3" in last
    assert "Question of t2?" in first, "the group in which something can be learned"
    # The call matches and counts half, in both; the outcome, 1 and 0, makes the difference.
    assert "reward 0.5000" in first and "advantage 0.7071" in first and "advantage -0.7071" in first
    assert "right, outcome 1" in first and "wrong, outcome 0" in first
    assert "calls count 0.5 times" in (run.path / "report.html").read_text("utf-8")


def test_judges_that_are_code_are_not_run_for_the_page(run):
    danger = msgspec.structs.replace(task("t9", "Question of t9?"), judge="os:system")
    run.tasks.append(danger)
    run.rollouts.append(trajectory("rl/t9/0/0", "t9", answer="exit 3"))
    run.tasks.close()
    run.rollouts.close()
    (text,) = [text for labels, text in seen(run).cards if labels == ["rollout"]]
    assert "not judged" in text


def test_trajectories_that_broke_are_named_beside_the_success(run):
    row = {"success": 0.4, "low": 0.2, "high": 0.6, "tasks": 30, "trajectories": 30, "calls": 2.1, "seconds": 1.0}
    run.set_metrics("eval_base", [{**row, "failures": 3}])
    said = "3 of 30 trajectories had an infrastructure failure (engine or tools) and count as not solved."
    assert said in write_page(run).read_text("utf-8")
    assert (
        "  3 of 30 had an infrastructure failure (engine or tools) and count as not solved"
        in table(report(run)).splitlines()
    )
    run.set_metrics("eval_base", [{**row, "failures": 0}])
    assert "infrastructure" not in write_page(run).read_text("utf-8") + table(report(run))
