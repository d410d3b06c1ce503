"""The page in a real browser, Debian's chromium. Without one, or without playwright, these tests skip."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from rewright.core.records import (
    Credit,
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
from support import in_process

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
PROGRAM = "from rewright.cli.main import main; main()"
ATTACK = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
ADA = ToolCall("lookup", {"name": "Ada"}, '{"name": "lookup", "arguments": {"name": "Ada"}}')
SCHEMA = {"type": "function", "function": {"name": "lookup", "description": "The age.", "parameters": {}}}
CANDIDATES = 120


def trajectory(key: str, task: str, stage: str, answer: str, **more: Any) -> Trajectory:
    text = '<think>I look</think><tool_call>{"name": "lookup", "arguments": {"name": "Ada"}}</tool_call>'
    turns = (
        Turn(text, (11, 12, 2), (-0.1, -3.0, -0.2), (ADA,), (ToolResult(ATTACK),), suffix_ids=(7, 8)),
        Turn(f"<think>Done</think><answer>{answer}</answer>", (13, 2), (-0.5, -0.1)),
    )
    return Trajectory(
        id=key, task_id=task, stage=stage, index=0, turns=turns, stop_reason="answered", answer=answer,
        prompt_ids=(1, 5, 6), seconds=1.5, **more,
    )  # fmt: skip


def make_run(path: Path, right: str) -> Run:
    """Candidates with a repair, two steps of RL with stored credit, and an evaluation."""
    run = Run.create(path, Recipe(), resume=False)
    for name in ("t1", "t2"):
        question = {"role": "user", "content": f"How old is Ada of {name}?"}
        gold = Gold(answers=("36",), calls=(ADA,))
        system = {"role": "system", "content": "Be brief."}
        task = Task(id=name, messages=(system, question), tools=(ToolSpec(schema=SCHEMA),), gold=gold)
        run.tasks.append(task)
        run.eval_tasks.append(msgspec.structs.replace(task, id=f"e-{name}"))
    for number in range(CANDIDATES):
        one = trajectory(f"synth/{number}", "t1", "synth", "36" if number % 2 else f"no {number}")
        run.trajectories.append(one)
        run.verdicts.append(Verdict(trajectory_id=one.id, outcome=float(number % 2), reason="compared"))
        selected: Any = "kept" if number % 2 else "wrong"
        run.qualities.append(
            Quality(confidence=1.0, length=1.0, repetition=1.0, total=0.5, trajectory_id=one.id, selected=selected)
        )
    fixed = trajectory("repair/0", "t1", "repair", "36", provenance=Provenance(parent="synth/0"))
    run.trajectories.append(fixed)
    run.repairs.append(
        Repair(
            original_id="synth/0", repaired_id="repair/0", task_id="t1", mode="wrong_answer", accepted=True, reason="ok"
        )
    )
    for step in range(2):
        for place in range(3):
            reward = float(place)
            verdict = Verdict(trajectory_id="", outcome=reward / 2, reason="as RL saw it")
            kept = Credit((0.25, reward), 0.25 + reward, (-0.125, reward - 1.0), verdict)
            run.rollouts.append(trajectory(f"rl/t2/{step}/{place}", "t2", "rl", str(place), credit=kept))
    trajectories, verdicts = run.evaluation("base")
    for name in ("t1", "t2"):
        key = f"eval-base/e-{name}/0/x"
        trajectories.append(trajectory(key, f"e-{name}", "eval-base", right))
        verdicts.append(Verdict(trajectory_id=key, outcome=float(right == "36"), reason="compared"))
    for file in (trajectories, verdicts):
        file.close()
    run.close()
    row = {"success": 0.5, "low": 0.3, "high": 0.7, "tasks": 2, "trajectories": 2, "calls": 1.0, "seconds": 1.0}
    run.set_metrics("eval_base", [row])
    run.set_metrics("sft", [{"step": step, "loss": 1 / step} for step in range(1, 30)])
    return run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("viewed")
    make_run(folder / "first", "36")
    make_run(folder / "second", "7")
    return folder


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    """The address that `rewright view first second` prints."""
    command = [sys.executable, "-c", PROGRAM, "view", "first", "second"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        assert server.stdout is not None
        yield server.stdout.readline().strip()
        server.terminate()
        server.wait()


def asked(address: str, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    request = urllib.request.Request(address + path, headers=headers)
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, dict(answer.headers), answer.read()
    except urllib.error.HTTPError as problem:
        return problem.code, dict(problem.headers), problem.read()


def test_the_server_answers_this_machine_alone_and_lets_nothing_run_but_its_script(address: str) -> None:
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/[\w-]{20,}/", address)
    status, headers, body = asked(address, "")
    assert status == 200 and b"<script src=" in body
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy
    assert asked(address, "api/runs", Host="example.org")[0] == 421
    root = address.rsplit("/", 2)[0]
    assert asked(root, "/")[0] == 404 and asked(root, "/api/runs")[0] == 404
    assert asked(address, "../../etc/passwd")[0] == 404
    assert asked(address, "api/trajectory?run=0&id=nobody")[0] == 400
    assert asked(address, "api/rows?run=9")[0] == 400
    assert asked(address, "api/rows?run=0&selection=best")[0] == 400


def test_filters_sorting_search_and_ranges_are_the_server_s(address: str, folder: Path) -> None:
    def rows(query: str) -> Any:
        return json.loads(asked(address, f"api/rows?run=0&{query}")[2])

    assert rows("count=5")["total"] == CANDIDATES + 1 + 6 + 2
    assert rows("selection=kept")["total"] == CANDIDATES // 2
    assert rows("verdict=wrong&stage=synth")["total"] == CANDIDATES // 2
    assert [row["reward"] for row in rows("stage=rl&sort=-reward")["rows"]] == [2.25, 2.25, 1.25, 1.25, 0.25, 0.25]
    assert rows("stage=rl&min=1&max=2")["total"] == 2
    assert rows("stage=rl&step=1&sort=reward")["rows"][0]["id"] == "rl/t2/1/0"
    assert rows("tool=lookup&task=t2")["total"] == 6 and rows("tool=other")["total"] == 0
    found = rows("q=NO+118")
    assert (found["total"], found["rows"][0]["id"], found["done"]) == (1, "synth/118", True)
    assert rows("q=ada+t2")["total"] == 6 + 1  # words of the question, which the trajectory does not repeat
    assert rows("q=log_probs")["total"] == 0, "keys and token ids are not text"
    assert [row["id"] for row in rows("start=100&count=2")["rows"]] == ["synth/100", "synth/101"]
    line = asked(address, "api/raw?run=0&id=rl/t2/0/1")[2]
    assert line in (folder / "first/rollouts.jsonl").read_bytes().splitlines(keepends=True)


def test_what_a_run_writes_while_it_is_shown_is_shown(address: str, folder: Path) -> None:
    def total() -> int:
        return int(json.loads(asked(address, "api/rows?run=1&stage=synth")[2])["total"])

    assert total() == CANDIDATES
    file = folder / "second/trajectories.jsonl"
    before = file.read_bytes()
    new = msgspec.json.encode(trajectory("synth/new", "t1", "synth", "36"))
    file.write_bytes(before + new[:40])  # an incomplete line is not there yet
    assert total() == CANDIDATES
    file.write_bytes(before + new + b"\n")
    while total() == CANDIDATES:  # the files are looked at twice a second
        pass
    assert total() == CANDIDATES + 1
    replaced = file.with_name("new.jsonl")
    replaced.write_bytes(b"".join(reversed(before.splitlines(keepends=True))))
    replaced.replace(file)
    while total() != CANDIDATES:
        pass
    first = json.loads(asked(address, "api/rows?run=1&stage=synth&count=1")[2])["rows"][0]
    assert first["id"] == f"synth/{CANDIDATES - 1}"
    assert json.loads(asked(address, "api/trajectory?run=1&id=synth/3")[2])["row"]["id"] == "synth/3"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    missing = CHROMIUM is None or importlib.util.find_spec("playwright") is None
    if missing and os.environ.get("REWRIGHT_TEST_BROWSER") != "required":
        pytest.skip("chromium or playwright is not installed")
    playwright = importlib.import_module("playwright.sync_api")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    context = browser.new_context(viewport={"width": 1200, "height": 800})
    context.set_default_timeout(120_000)
    page = context.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda problem: problems.append(str(problem)))
    page.on("console", lambda said: problems.append(said.text) if said.type == "error" else None)
    yield page
    assert problems == []
    context.close()


def press_at_once(page: Any, keys: str) -> None:
    """Press keys faster than the page can be drawn between them."""
    page.evaluate(
        "keys => { for (const key of keys)"
        " document.body.dispatchEvent(new KeyboardEvent('keydown', {key, bubbles: true})); }",
        keys,
    )


def test_keys_that_come_faster_than_the_page_is_drawn_all_count(page: Any, address: str) -> None:
    page.goto(f"{address}#/t?run=0&id=synth/0")
    page.get_by_text("synth/0", exact=True).wait_for()
    press_at_once(page, "jjjjk")
    page.get_by_text("synth/3", exact=True).wait_for()
    press_at_once(page, "kkkkkkk")
    page.get_by_text("synth/0", exact=True).wait_for()
    page.goto(f"{address}#/t?run=0&id=rl/t2/1/2")  # the last one of the list
    page.get_by_text("rl/t2/1/2", exact=True).wait_for()
    press_at_once(page, "jjk")
    page.get_by_text("rl/t2/1/1", exact=True).wait_for()
    page.goto(f"{address}#/steps?run=0")
    page.get_by_text("step 1 of 2").wait_for()
    press_at_once(page, "jk")
    page.wait_for_timeout(0)
    assert page.url.endswith("at=0")
    page.get_by_text("step 1 of 2").wait_for()


def test_the_list_is_where_it_was_after_a_trajectory(page: Any, address: str) -> None:
    page.goto(f"{address}#/list?run=0&stage=synth")
    page.get_by_text("120 of 129 trajectories").wait_for()
    press_at_once(page, "j" * 90)
    page.keyboard.press("Enter")
    page.get_by_text("synth/90", exact=True).wait_for()
    press_at_once(page, "jj")
    page.get_by_text("synth/92", exact=True).wait_for()
    page.keyboard.press("Escape")
    page.get_by_text("120 of 129 trajectories").wait_for()
    row = page.locator(".row.at")
    row.wait_for()
    assert "no 92" in row.inner_text()
    box = row.bounding_box()
    assert 0 < box["y"] < 800, "the row is on the screen"


def test_the_list_is_walked_and_searched_with_the_keyboard(page: Any, address: str) -> None:
    page.goto(address)
    page.get_by_text("129 of 129 trajectories").wait_for()
    assert page.locator(".row").count() < 60, "only what is on the screen is in the page"
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("k")
    page.keyboard.press("Enter")
    page.get_by_text("synth/1", exact=True).wait_for()
    press_at_once(page, "jjk")
    page.get_by_text("synth/2", exact=True).wait_for()
    page.keyboard.press("Escape")
    page.get_by_text("129 of 129 trajectories").wait_for()
    page.keyboard.press("/")
    page.keyboard.type("no 118")
    page.get_by_text("1 of 129 trajectories").wait_for()
    page.keyboard.press("Escape")
    page.keyboard.press("Enter")
    page.get_by_text("synth/118", exact=True).wait_for()
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    page.get_by_role("dialog").wait_for()
    page.keyboard.press("Escape")
    assert page.get_by_role("dialog").count() == 0
    assert "q=no+118" in page.url
    page.get_by_role("button", name="clear").click()
    page.get_by_label("selection").select_option("repaired")
    page.get_by_text("1 of 129 trajectories").wait_for()
    assert "selection=repaired" in page.url


def test_the_list_follows_a_run_that_is_going_on(page: Any, address: str, folder: Path) -> None:
    before = json.loads(asked(address, "api/rows?run=1")[2])["total"]
    page.goto(f"{address}#/list?run=1")
    page.get_by_text(f"{before} of {before} trajectories").wait_for()
    with (folder / "second/trajectories.jsonl").open("ab") as file:
        file.write(msgspec.json.encode(trajectory("synth/live", "t1", "synth", "36")) + b"\n")
    page.get_by_text(f"{before + 1} of {before + 1} trajectories").wait_for()


def test_a_trajectory_has_its_conversation_its_credit_and_its_tokens(page: Any, address: str) -> None:
    page.goto(f"{address}#/t?run=0&id=rl/t2/0/2")
    page.get_by_text("the credit that RL trained with").wait_for()
    assert page.locator(".picture svg rect").count() > 4
    turns = page.locator(".turn-head").all_inner_texts()
    assert ["reward 0.25" in turns[0], "advantage -0.13" in turns[0], "advantage 1.00" in turns[1]] == [True] * 3
    call = page.locator("details.call").first
    assert call.get_attribute("open") is None
    page.keyboard.press("e")
    page.locator("details.call[open]").first.wait_for()
    assert page.locator(".call .result pre").first.inner_text() == ATTACK
    assert page.title() == "first · Rewright" and page.locator("main img").count() == 0
    page.get_by_role("link", name="Token colours").click()
    page.locator(".segment.turn span[title]").first.wait_for()
    titles = [one.get_attribute("title") for one in page.locator(".segment.turn").first.locator("span[title]").all()]
    assert titles[1] == "token 12, log-probability -3.000, trained on"
    for mode in ("advantage", "log-probability", "loss mask"):
        page.get_by_role("button", name=mode).click()
        colours = page.locator(".segment span[title]").evaluate_all(
            "all => new Set(all.map(one => getComputedStyle(one).backgroundColor)).size"
        )
        assert colours >= 2, mode
    page.get_by_role("link", name="Raw JSON").click()
    page.get_by_text('"trajectory_reward": 2.25').wait_for()


def test_a_repair_stands_beside_its_original(page: Any, address: str) -> None:
    page.goto(f"{address}#/t?run=0&id=synth/0&tab=repair")
    page.get_by_role("table", name="difference").wait_for()
    assert page.locator(".pair.changed .line.answer").all_inner_texts() == ["answer\nno 0", "answer\n36"]
    assert page.locator(".pair.same .line.call").count() == 2


def test_the_steps_of_rl_show_every_rollout_of_the_group(page: Any, address: str) -> None:
    page.goto(f"{address}#/steps?run=0")
    page.get_by_text("step 1 of 2").wait_for()
    page.get_by_text("rollout 3").wait_for()
    assert page.locator(".side").count() == 3
    page.get_by_label("step 1 of 2").fill("1")
    page.get_by_text("step 2 of 2").wait_for()
    page.get_by_role("link", name="rollout 3").click()
    page.get_by_text("rl/t2/1/2", exact=True).wait_for()
    page.get_by_role("link", name="group of 3 side by side").click()
    page.locator(".side").nth(2).wait_for()


def test_results_are_tables_and_curves_that_can_be_zoomed(page: Any, address: str) -> None:
    page.goto(f"{address}#/overview?run=0")
    page.get_by_role("cell", name="50.0%").wait_for()
    chart = page.get_by_role("img", name="sft: loss")
    before = chart.locator("circle").count()
    box = chart.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + 60)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.7, box["y"] + 60)
    page.mouse.up()
    page.get_by_role("button", name="all", exact=True).wait_for()
    assert 0 < chart.locator("circle").count() < before
    chart.dblclick()
    assert chart.locator("circle").count() == before


def test_two_runs_are_compared_down_to_the_same_task(page: Any, address: str) -> None:
    page.goto(f"{address}#/compare")
    page.get_by_text("The same tasks under both").wait_for()
    page.locator(".groups a").first.click()
    page.locator(".side").nth(1).wait_for()
    assert page.locator(".side .answer").all_inner_texts() == ["answer 36", "answer 7"]


def test_a_file_to_share_works_without_a_server_and_says_what_is_left_out(page: Any, folder: Path) -> None:
    done = in_process.rewright(folder, "view", "first", "--static", "page.html", "--examples", "30")
    assert done.code == 0, done.errors
    page.goto((folder / "page.html").as_uri())
    page.get_by_text("99 of the run's trajectories are left out of this file").wait_for()
    page.get_by_label("stage").select_option("rl")
    page.get_by_text(re.compile("^6 of")).wait_for()
    page.keyboard.press("Enter")
    page.get_by_text("the credit that RL trained with").wait_for()
    assert page.title() == "first · Rewright"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_screen_fits_a_phone_in_both_themes(browser: Any, address: str, scheme: str) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 844}, color_scheme=scheme)
    context.set_default_timeout(120_000)
    page = context.new_page()
    for screen, text in (
        ("list", "129 of 129"), ("t?id=synth/0", "synth/0"), ("t?id=rl/t2/0/2&tab=tokens", "loss mask"),
        ("t?id=synth/0&tab=repair", "accepted"), ("steps", "rollout 3"), ("overview", "Held-out"),
        ("compare", "The same tasks"),
    ):  # fmt: skip
        page.goto(f"{address}#/{screen}")
        page.get_by_text(text).first.wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, screen
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert ground == {"light": "rgb(245, 247, 249)", "dark": "rgb(18, 22, 27)"}[scheme]
    context.close()
