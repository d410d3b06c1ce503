"""MCP servers through the command line and `rw.rollout`: a run, its preflight, doctor, and whose commands are run."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import rewright as rw
from support.chat_server import calls, chat_server, results_of, says
from support.in_process import rewright
from support.mcp_shop import TOOLS, make
from support.served import served

SHOP = Path(__file__).parents[1] / "support" / "mcp_shop.py"
COMMAND = shlex.join([sys.executable, str(SHOP), "stdio"])
SLOW = {"start_seconds": 300.0, "call_seconds": 300.0}
TASK = {"id": "a", "messages": [{"role": "user", "content": "Order a desk."}], "tools": [], "gold": {"answers": ["o1"]}}


def reply(body: dict[str, Any]) -> dict[str, Any]:
    """Order a desk, and answer with the number of the order."""
    results = results_of(body)
    return says(results[0]) if results else calls("place_order", item="desk", count=1)


@pytest.fixture(scope="module")
def model() -> Iterator[str]:
    with served(lambda: chat_server(reply)) as url:
        yield f"{url}/v1"


def put(folder: Path, server: dict[str, Any], url: str = "http://127.0.0.1:9/v1", **changes: Any) -> None:
    """A recipe of one task and one MCP server."""
    (folder / "t.jsonl").write_text(json.dumps(TASK) + "\n")
    recipe = {
        "tasks": {"format": "rewright", "path": "t.jsonl"},
        "model": {"path": "m", "engine": "openai", "base_url": url, "check_model": False},
        "stages": ["synth", "judge"],
        "tools": {"mcp": {"shop": server}},
        **changes,
    }
    (folder / "r.yaml").write_text(yaml.safe_dump(recipe))


def trajectories(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "trajectories.jsonl").read_text().splitlines()]


def test_a_run_calls_the_tools_of_a_command_and_keeps_what_it_lists(tmp_path: Path, model: str) -> None:
    copy = tmp_path / "shop.py"
    copy.write_text(SHOP.read_text())
    command = [sys.executable, str(copy), "stdio"]
    put(tmp_path, {"command": command, **SLOW}, model)
    shown = rewright(tmp_path, "run", "r.yaml", "--dry-run")
    assert f"tools.mcp.shop: {', '.join(TOOLS)}" in shown.output.splitlines(), shown
    assert not (tmp_path / "runs").exists()

    done = rewright(tmp_path, "run", "r.yaml")
    assert done.code == 0, done.errors
    run = tmp_path / "runs" / "run"
    found = trajectories(run)
    assert {one["answer"] for one in found} == {"o1"}  # each trajectory has a session, and so the first order
    assert len(found) == 2
    assert [result["error"] for one in found for result in one["turns"][0]["results"] if result.get("error")] == []
    assert [tool["shown"] for tool in json.loads((run / "mcp_tools.json").read_text())["servers"]["shop"]] == TOOLS
    assert "shop: starting" in (run / "libraries.log").read_text()

    # The run may come from elsewhere: its command is named before anything of it is started.
    copy.write_text("raise SystemExit('was started')")
    words = shlex.join(command)
    rewright(tmp_path, "judge", "runs/run").refused(f"tools.mcp.shop.command: {words}")
    rewright(tmp_path, "judge", "runs/run").refused(f"--trusted {shlex.quote(words)}")
    rewright(tmp_path, "judge", "runs/run", "--trusted", sys.executable).refused("--trusted")
    # A stage without rollouts needs no server.
    judged = rewright(tmp_path, "judge", "runs/run", "--trusted", words)
    assert judged.code == 0, judged.errors
    rewright(tmp_path, "synth", "runs/run", "--trusted", words).refused("its standard error: was started")


def test_a_server_in_this_process_and_tools_of_a_task_that_name_one(tmp_path: Path, model: str) -> None:
    put(tmp_path, {"server": "support.mcp_shop:make", "tools": [], **SLOW}, model)
    schema = {"type": "function", "function": {"name": "buy", "parameters": {"type": "object", "properties": {}}}}
    tool = {"schema": schema, "kind": "mcp", "data": {"server": "shop", "tool": "place_order"}}
    (tmp_path / "t.jsonl").write_text(json.dumps(TASK | {"tools": [tool]}) + "\n")

    def buy(body: dict[str, Any]) -> dict[str, Any]:
        assert [one["function"]["name"] for one in body["tools"]] == ["buy"]
        return reply(body) if results_of(body) else calls("buy", item="desk", count=1)

    with served(lambda: chat_server(buy)) as url:
        done = rewright(tmp_path, "run", "r.yaml", f"model.base_url={url}/v1", "stages=[synth]")
    assert done.code == 0, done.errors
    assert {one["answer"] for one in trajectories(tmp_path / "runs" / "run")} == {"o1"}
    for data, words in (
        (
            {"server": "shop", "tool": "sell"},
            "task a: tool buy: tools.mcp.shop has no tool 'sell': it has search_items",
        ),
        ({"server": "market"}, "task a: tool buy of kind 'mcp': there is no server 'market' in tools.mcp"),
    ):
        (tmp_path / "t.jsonl").write_text(json.dumps(TASK | {"tools": [tool | {"data": data}]}) + "\n")
        rewright(tmp_path, "run", "r.yaml", "--dry-run").refused(words)


def test_rw_rollout_takes_a_server_object(model: str) -> None:
    found = rw.rollout_sync(
        [{"id": "a", "messages": TASK["messages"]}],
        model="m",
        base_url=model,
        tools=[make()],
        recipe={"model": {"engine": "openai", "check_model": False}, "synth": {"n": 1}},
        progress=False,
    )
    assert [one.answer for one in found] == ["o1"]
    with pytest.raises(rw.InputError, match="'search_items' is given twice"):
        rw.rollout_sync([{"id": "a", "messages": TASK["messages"]}], model="m", base_url=model, tools=[make(), make()])


BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "a program that is missing": ({"command": "no-such-program --x"}, "shop: no-such-program --x: FileNotFoundError"),
    "a program that ends": (
        {"command": [sys.executable, "-c", "raise SystemExit('no licence')"]},
        "(its standard error: no licence): expected an MCP server that lists its tools",
    ),
    "no server at the address": ({"url": "http://127.0.0.1:9/mcp"}, "tools.mcp.shop: http://127.0.0.1:9/mcp: "),
    "a program that says nothing": (
        {"command": [sys.executable, "-c", "import time; time.sleep(600)"], "start_seconds": 0.5},
        "no answer within 0.5 s (start_seconds)",
    ),
    "an import path": ({"server": "support.nowhere:make"}, "tools.mcp.shop.server 'support.nowhere:make': No module"),
    "no server": ({"server": "support.mcp_shop:TOOLS"}, "a list: expected an MCP server, or a function that makes one"),
    "a variable": ({"command": COMMAND, "env": ["NO_SUCH_VARIABLE"]}, "env names NO_SUCH_VARIABLE, which is not set"),
    "a key": ({"url": "http://127.0.0.1:9/mcp", "api_key_env": "NO_SUCH_KEY"}, "api_key_env names NO_SUCH_KEY"),
    "two places": ({"url": "http://h/mcp", "command": "x"}, "an MCP server has command and url: expected exactly one"),
    "no place": ({"session": "shared"}, "r.yaml:14: tools.mcp.shop: an MCP server has none of command, url and server"),
    "variables for a URL": ({"url": "http://h/mcp", "env": ["A"]}, "env has no effect without command"),
    "a transport for a command": ({"command": "x", "transport": "sse"}, "transport has no effect without url"),
    "an open quotation mark": ({"command": "x 'y"}, "tools.mcp.shop: no closing quotation"),
    "a misspelt key": ({"comand": "x"}, "unknown key tools.mcp.shop.comand: did you mean"),
    "a session": ({"command": "x", "session": "own"}, "tools.mcp.shop.session: invalid enum value 'own'"),
    "an address": ({"url": "ftp://h/mcp"}, "tools.mcp.shop.url: "),
    "a path": ({"server": "shop"}, "server is 'shop': expected an import path such as package.module:server"),
}  # fmt: skip


@pytest.mark.parametrize(("server", "words"), BROKEN.values(), ids=BROKEN)
def test_what_is_wrong_with_a_server_is_said_in_one_line(tmp_path: Path, server: dict[str, Any], words: str) -> None:
    put(tmp_path, server)
    rewright(tmp_path, "run", "r.yaml", "--dry-run").refused(words)
    rewright(tmp_path, "run", "r.yaml").refused(words)
    assert not (tmp_path / "runs").exists()


def test_doctor_lists_the_tools_of_servers(tmp_path: Path) -> None:
    put(tmp_path, {"server": "support.mcp_shop:make", **SLOW}, model={"path": "pico"})
    shown = rewright(tmp_path, "doctor", "r.yaml")
    assert f"tools.mcp.shop  5 tools: {', '.join(TOOLS)}" in shown.output
    put(tmp_path, {"url": "http://127.0.0.1:9/mcp"}, model={"path": "pico"})
    state = json.loads(rewright(tmp_path, "doctor", "r.yaml", "--json").output)
    assert state["mcp"]["tools.mcp.shop"].startswith("http://127.0.0.1:9/mcp: ")


def test_ids_of_trajectories_do_not_depend_on_where_a_server_is() -> None:
    from rewright.recipe.loader import load_recipe, recipe_hash

    def ids(*changes: str) -> str:
        return recipe_hash(load_recipe(None, changes), ("tools",))

    assert ids("tools.mcp.a.url=http://127.0.0.1:1/mcp") == ids("tools.mcp.a.url=http://127.0.0.1:2/mcp")
    assert ids("tools.mcp.a.url=http://h/mcp") != ids("tools.mcp.a.url=http://h/mcp", "tools.mcp.a.prefix=x")
    assert ids("tools.mcp.a.url=http://h/mcp") != ids()
