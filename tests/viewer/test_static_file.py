"""One file to share: all that is known of its trajectories, and nothing that runs or is loaded from elsewhere."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import msgspec
import pytest

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
from rewright.reports.report import write_report
from rewright.reports.summary import report
from rewright.reports.table import table
from rewright.viewer.details import MAX_TEXT_CHARACTERS
from support import in_process
from support.static_page import page_data

ATTACK = "<script>alert('tool')</script><img src=x onerror=alert(1)>"
ADA = ToolCall("lookup", {"name": "Ada"}, '{"name": "lookup", "arguments": {"name": "Ada"}}')


class Seen(HTMLParser):
    """The elements of the page as a browser finds them, with their attributes."""

    def __init__(self, text):
        super().__init__()
        self.elements = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

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


def written(run, *options):
    """What the file of a run holds, and its text."""
    out = run.path.parent / "page.html"
    said = in_process.rewright(run.path.parent, "view", run.path.name, "--static", "page.html", *options)
    assert said.code == 0, said.errors
    (found,) = page_data(out)["runs"]
    return found, out.read_text("utf-8")


def of(run, key, *options):
    return written(run, *options)[0]["trajectories"][key]


def test_every_trajectory_stands_with_its_verdict_its_quality_its_repair_and_its_credit(run):
    page, _ = written(run)
    one = page["trajectories"]["wrong-1"]
    assert (one["row"]["selection"], one["row"]["repair"]) == ("wrong", "repaired")
    assert one["row"]["prompt"] == "How old is Ada?"
    assert one["turns"][0]["thought"] == "I look"
    assert one["turns"][0]["calls"] == [{"name": "lookup", "arguments": {"name": "Ada"}, "error": None, "raw": ""}]
    assert one["verdict"]["reason"] == "'37' is not the gold answer '36'"
    assert one["quality"] == {
        "total": 0.5, "scores": {"confidence": 1.0, "length": 0.75, "repetition": 1.0, "tool_errors": 0.25},
    }  # fmt: skip
    assert (one["repair"]["repaired_id"], one["repair"]["accepted"], one["repair"]["tokens"]) == ("fix-1", True, 120)
    assert one["repair"]["reason"] == "correct, quality 0.93"
    assert one["provenance"]["model"] == "some-model"
    assert one["task"]["answers"] == ["36"]
    assert [message["role"] for message in one["task"]["messages"]] == ["system", "user"]
    kinds = {row["id"]: (row["selection"], row["repair"]) for row in page["rows"]}
    assert kinds == {
        "kept-1": ("kept", ""), "wrong-1": ("wrong", "repaired"), "hard-2": ("wrong", "hard"), "low-2": ("low", ""),
        "fix-1": ("", ""), "fix-2": ("", ""),
    }  # fmt: skip
    assert all(one["credit"]["drawing"]["shapes"] for one in page["trajectories"].values())


def test_advantages_are_those_of_the_group_and_a_repair_has_rewards_only(run):
    page, _ = written(run)
    # R is 2 and 1: normalised ±0.71. The last turns' rewards, 1 and 0, too; the first turns' returns are 1.9 and 1.
    assert page["trajectories"]["wrong-1"]["credit"]["advantages"][-1] == pytest.approx(-0.7071, abs=1e-4)
    assert page["trajectories"]["fix-1"]["credit"]["advantages"] is None
    assert page["trajectories"]["fix-1"]["credit"]["rewards"][0] == pytest.approx(1.0)


def test_what_tools_models_and_data_sets_wrote_is_data_and_not_markup(run):
    found, text = written(run)
    page = Seen(text)
    assert len(page.all("script")) == 2 and page.all("img") == [] and page.all("b") == []
    assert all(not name.startswith("on") for _, values in page.elements for name in values)
    assert found["trajectories"]["wrong-1"]["turns"][0]["results"][0]["content"] == ATTACK
    assert found["trajectories"]["low-2"]["answer"] == "</details><script>alert('model')</script>"
    assert found["trajectories"]["hard-2"]["row"]["prompt"] == "How tall is <b>Ben</b>?"


def test_only_the_page_s_own_script_and_style_may_run_and_nothing_is_loaded(run):
    _, text = written(run)
    page = Seen(text)
    policy = next(values["content"] for values in page.all("meta") if "http-equiv" in values)
    assert policy.startswith("default-src 'none'; img-src data:;")
    for tag in ("script", "style"):
        content = re.search(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)[1]
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert not page.all("link") and not any({"href", "src"} & values.keys() for _, values in page.elements)


def test_filters_name_every_kind_with_its_number(run):
    facets = written(run)[0]["head"]["facets"]
    assert facets["selection"] == [["kept", 1], ["low", 1], ["wrong", 2], ["repaired", 1], ["hard", 1]]
    assert facets["verdict"] == [["right", 3], ["wrong", 3]]
    assert facets["tool"] == [["lookup", 6]]


def test_fewer_trajectories_are_of_different_kinds_and_the_rest_is_said_to_be_left_out(run):
    for number in range(20):
        run.qualities.append(quality(f"more-{number}", "wrong"))
        run.trajectories.append(trajectory(f"more-{number}", "t2", index=2 + number))
    run.qualities.close()
    run.trajectories.close()
    page, _ = written(run, "--examples", "6")
    kinds = [(row["selection"], row["repair"]) for row in page["rows"] if not row["parent"]]
    assert {("kept", ""), ("low", ""), ("wrong", "hard"), ("wrong", "repaired")} <= set(kinds)
    assert (len(page["rows"]), page["head"]["left_out"]) == (6, 20)
    said = in_process.rewright(run.path.parent, "view", "a-run", "--static", "page.html", "--examples", "6", "--json")
    assert json.loads(said.output) == {"page": "page.html", "left_out": [20]}
    assert "20 of 26 trajectories are left out of the file" in " ".join(said.errors.split())
    assert written(run, "--examples", "0")[0]["rows"] == []
    assert len(written(run, "--examples", str(10**18))[0]["rows"]) == 26


def test_curves_are_drawn_without_what_is_no_number(run):
    """A loss that was NaN is stored as null."""
    pytest.importorskip("matplotlib")
    found = report(run)
    for rows in ([{"step": 1, "loss": None}], [{"step": step, "loss": step % 3 or None} for step in range(40)]):
        run.set_metrics("sft", rows)
        (picture,) = write_report(run, found)
        assert picture.stat().st_size > 0
    (curve,) = written(run)[0]["summary"]["curves"]
    assert (curve["stage"], curve["key"], curve["main"], curve["points"][:2]) == ("sft", "loss", True, [[1, 1], [2, 2]])


def test_the_table_of_the_run_is_on_the_page(run):
    found = written(run)[0]["summary"]["report"]
    (row,) = found["stages"]
    assert (row["stage"], row["success"], row["low"], row["high"]) == ("base", 0.4, 0.25, 0.58)
    assert (found["counts"]["candidates"], found["counts"]["repaired"]) == (4, 1)


def test_a_run_that_has_only_begun_has_a_page(tmp_path):
    run = Run.create(tmp_path / "new", Recipe(), resume=False)
    assert written(run)[0]["rows"] == []
    run.trajectories.append(trajectory("first", "gone"))
    run.trajectories.close()
    one = of(run, "first")
    assert (one["row"]["selection"], one["verdict"], one["task"]) == ("unscored", None, None)


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
    shown = written(run)[0]["trajectories"]
    assert shown["talk"]["turns"][0]["said"] == "Ada is 36."
    assert shown["talk"]["turns"][0]["follow_up"] == [{"role": "user", "content": "And <b>Ben</b>?"}]
    assert shown["no-gold"]["credit"] is None
    assert shown["broken"]["failure"] == "engine: server <gone>"
    assert shown["malformed"]["turns"][0]["calls"][0]["raw"] == "{not json"
    assert shown["malformed"]["turns"][0]["calls"][0]["error"] == "malformed call: no JSON"


@pytest.mark.parametrize(
    ("text", "call"),
    [
        # A chat server sends the arguments alone; the turn's text has the call in the form of hermes.
        ('I look.\n<tool_call>\n{"name": "lookup", "arguments": {"name": "Ada"}}\n</tool_call>',
         ToolCall("lookup", {"name": "Ada"}, '{"name": "Ada"}')),
        ('I look.<tool_call>{"name": "lookup", "arguments": {}}</tool_call>', ToolCall("lookup", {}, "{}")),
        # The dialect tags writes a call as an element of the tool's name.
        ("I look.<search>Ada</search>", ToolCall("search", {"query": "Ada"}, "Ada")),
    ],
)  # fmt: skip
def test_the_text_of_a_turn_has_no_rest_of_its_calls(tmp_path, text, call):
    run = Run.create(tmp_path / "served", Recipe(), resume=False)
    turn = Turn(text, calls=(call,), results=(ToolResult("36"),))
    run.trajectories.append(
        Trajectory(id="one", task_id="t1", stage="synth", index=0, turns=(turn,), stop_reason="no_answer")
    )
    run.trajectories.close()
    assert of(run, "one")["turns"][0]["said"] == "I look."


def test_a_long_text_is_cut_and_says_so(run):
    run.trajectories.append(trajectory("huge", "t1", result="x" * (MAX_TEXT_CHARACTERS + 1234), index=2))
    run.trajectories.close()
    content = of(run, "huge")["turns"][0]["results"][0]["content"]
    assert content == "x" * MAX_TEXT_CHARACTERS + "… (1,234 more characters)"


def test_a_recipe_of_another_version_is_no_reason_to_show_nothing(run):
    (run.path / "recipe.yaml").write_text("colour: blue\n")
    page, _ = written(run)
    assert "unknown key colour" in page["head"]["words"] and len(page["rows"]) == 6


def test_mistakes_are_one_clear_message(run):
    def refused(words, *arguments):
        in_process.rewright(run.path.parent, "view", "a-run", *arguments).refused(words)

    refused("expected 0 or more", "--static", "page.html", "--examples", "-1")
    refused("cannot write none/page.html", "--static", "none/page.html")
    refused("--examples needs --static FILE", "--examples", "3")
    refused("--json needs --static FILE", "--json")
    refused("--port and --static", "--static", "page.html", "--port", "0")
    (run.path / "verdicts.jsonl").write_text("{}\n" + json.dumps({}) + "\n")
    refused("verdicts.jsonl:1", "--static", "page.html")
    refused("verdicts.jsonl:1")
    assert not (run.path.parent / "page.html").exists()


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


def test_a_held_out_task_stands_with_every_model(run):
    for number in range(8):
        run.eval_tasks.append(task(f"e{number}", f"Held-out question {number}?"))
    run.eval_tasks.close()
    evaluated(run, "base", [1.0, 1.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0])
    evaluated(run, "rl", [1.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0, 1.0])
    one = of(run, "eval-base/e2/0/abc")
    assert one["group"] == ["eval-base/e2/0/abc", "eval-rl/e2/0/abc"]
    assert (one["row"]["prompt"], one["answer"], one["verdict"]["outcome"]) == (
        "Held-out question 2?",
        "base says 7",
        0,
    )
    assert one["credit"]["rewards"][0] == pytest.approx(1.0)
    assert one["credit"]["advantages"] is None, "no group was rolled out here"


def test_every_step_of_rl_stands_with_all_rollouts_of_its_groups(tmp_path):
    recipe = msgspec.convert({"rl": {"call_weight": 0.5}}, Recipe)
    run = Run.create(tmp_path / "rl-run", recipe, resume=False)
    for key in ("t1", "t2"):
        run.tasks.append(task(key, f"Question of {key}?"))
    for step in range(3):
        for place, (key, answer) in enumerate([("t1", "7"), ("t1", "7"), ("t2", "36"), ("t2", "7")]):
            run.rollouts.append(trajectory(f"rl/{key}/{step}/{place}", key, answer=answer, index=place))
    run.tasks.close()
    run.rollouts.close()
    page, _ = written(run)
    assert [(one["step"], one["rollouts"], one["groups"]) for one in page["head"]["steps"]] == [
        (0, 4, 2),
        (1, 4, 2),
        (2, 4, 2),
    ]
    assert [len(one["rows"]) for one in page["steps"]["2"]] == [2, 2]
    right = page["trajectories"]["rl/t2/0/2"]
    assert right["group"] == ["rl/t2/0/2", "rl/t2/0/3"]
    # The call matches and counts half, in both; the outcome, 1 and 0, makes the difference.
    assert right["credit"]["rewards"][0] == pytest.approx(0.5)
    assert right["credit"]["advantages"][-1] == pytest.approx(0.7071, abs=1e-4)
    assert page["trajectories"]["rl/t2/0/3"]["credit"]["advantages"][-1] == pytest.approx(-0.7071, abs=1e-4)
    assert right["recomputed"] and not right["credit"]["used_by_rl"]
    assert "calls count 0.5 times" in page["head"]["words"]


def test_judges_that_are_code_are_not_run_for_the_page(run):
    danger = msgspec.structs.replace(task("t9", "Question of t9?"), judge="os:system")
    run.tasks.append(danger)
    run.rollouts.append(trajectory("rl/t9/0/0", "t9", answer="exit 3"))
    run.tasks.close()
    run.rollouts.close()
    assert of(run, "rl/t9/0/0")["verdict"] is None


def test_trajectories_that_broke_are_named_beside_the_success(run):
    row = {"success": 0.4, "low": 0.2, "high": 0.6, "tasks": 30, "trajectories": 30, "calls": 2.1, "seconds": 1.0}
    run.set_metrics("eval_base", [{**row, "failures": 3}])
    assert written(run)[0]["summary"]["report"]["stages"][0]["failures"] == 3
    said = "  3 of 30 had an infrastructure failure (engine or tools) and count as not solved"
    assert said in table(report(run)).splitlines()
    run.set_metrics("eval_base", [{**row, "failures": 0}])
    assert "infrastructure" not in table(report(run))


def test_two_runs_are_compared_with_the_same_tasks_under_both(run, tmp_path):
    other = Run.create(tmp_path / "other", Recipe(), resume=False)
    for one in (run, other):
        for number in range(3):
            one.eval_tasks.append(task(f"e{number}", f"Held-out question {number}?"))
        one.eval_tasks.close()
    evaluated(run, "base", [1.0, 1.0, 0.0])
    evaluated(other, "base", [1.0, 0.0, 0.0])
    said = in_process.rewright(tmp_path, "view", "a-run", "other", "--static", "page.html")
    assert said.code == 0, said.errors
    found = page_data(tmp_path / "page.html")
    tasks = found["comparisons"]["0-1"]["tasks"]
    assert [(one["task"], one["left"]["success"], one["right"]["success"]) for one in tasks] == [
        ("e1", 1, 0), ("e0", 1, 1), ("e2", 0, 0),
    ]  # fmt: skip
    assert tasks[0]["right"]["id"] in found["runs"][1]["trajectories"]
