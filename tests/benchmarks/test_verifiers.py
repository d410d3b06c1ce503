"""Environments of verifiers as tasks, tools and rubric, with verifiers 0.4 itself (tests/support/peers.py)."""

import json
from pathlib import Path

import pytest

from rewright.core.errors import InputError
from rewright.tasks.loading import load_tasks
from support import peers
from support.in_process import rewright

ENVIRONMENT = '''
import verifiers.v1 as vf

__all__ = ["DeskTaskset"]


class DeskState(vf.State):
    asked: int = 0


class DeskData(vf.TaskData):
    answer: str


class Desk(vf.Toolset[vf.ToolsetConfig, DeskState]):
    async def setup_task(self, task):
        self.answer = task.answer

    @vf.tool
    def look_up(self, name: str, times: int = 1) -> str:
        """Look a name up."""
        self.state.asked += times
        return f"{name} is {self.answer}, asked {self.state.asked}"


class DeskTask(vf.Task[DeskData, DeskState, vf.TaskConfig]):
    @classmethod
    def toolsets(cls, config):
        return [Desk(vf.ToolsetConfig())]

    @vf.reward(weight=0.75)
    async def right(self, trace):
        return float(trace.last_reply == self.data.answer)

    @vf.reward(weight=0.25)
    async def asked_twice(self, trace):
        return float(trace.state.asked == 2)

    @vf.metric
    async def turns(self, trace):
        return trace.num_turns


class DeskConfig(vf.TasksetConfig):
    count: int = 3


class DeskTaskset(vf.Taskset[DeskTask, DeskConfig]):
    def load(self):
        for number in range(self.config.count):
            data = DeskData(prompt=f"What is name {number}?", answer=str(number), system_prompt="Be brief.")
            yield DeskTask(data, self.config.task)
'''
HOUSE = """
import verifiers.v1 as vf

__all__ = ["HouseTaskset"]


class HouseTask(vf.Task[vf.TaskData, vf.State, vf.TaskConfig]):
    NEEDS_CONTAINER = True


class HouseTaskset(vf.Taskset[HouseTask, vf.TasksetConfig]):
    def load(self):
        yield HouseTask(vf.TaskData(prompt="Q"), self.config.task)
"""
SCRIPT = """
import json, sys
from pathlib import Path
from aiohttp import web
from support.served import served

folder = Path(sys.argv[1])
CALL = '<tool_call>{"name": "desk_look_up", "arguments": {"name": "Ada"}}</tool_call>'

def application():
    async def chat(request):
        body = await request.json()
        results = [one["content"] for one in body["messages"] if one["role"] == "tool"]
        number = next(one["content"] for one in body["messages"] if one["role"] == "user").split()[3].rstrip("?")
        text = CALL
        if len(results) == 2 or (number == "1" and results):
            text = f"<answer>{results[-1].split()[2].rstrip(',') if number != '2' else 'no'}</answer>"
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        return web.json_response({"id": "1", "object": "chat.completion", "model": "m", "choices": [choice]})
    app = web.Application()
    app.router.add_post("/v1/chat/completions", chat)
    return app

if __name__ == "__main__":
    from support.in_process import rewright
    with served(application) as url:
        (folder / "recipe.yaml").write_text(
            "name: desk\\ndialect: hermes\\nstages: [synth, judge]\\n"
            "tasks: {format: verifiers, environment: desk_env, arguments: {count: 3}}\\n"
            f"model: {{path: m, engine: openai, base_url: '{url}/v1', mode: chat, log_probs: 'off'}}\\n"
            "synth: {n: 1}\\nsandbox: process\\nlimits: {tool_seconds: 60}\\n"
        )
        run = rewright(folder, "run", "recipe.yaml", "--run", "out")
        assert run.code == 0, run.errors
    verdicts = [json.loads(line) for line in (folder / "out/verdicts.jsonl").read_text().splitlines()]
    trajectories = [json.loads(line) for line in (folder / "out/trajectories.jsonl").read_text().splitlines()]
    refused = {}
    for name in ("house_env", "missing_env", "desk_env?", "textarena"):
        refused[name] = rewright(folder, "validate", name, "--format", "verifiers").errors.splitlines()[-1]
    tasks = (folder / "out/tasks.jsonl").read_text().splitlines()
    bad = {"format": "verifiers", "environment": "desk_env", "arguments": {"count": "many"}}
    (folder / "bad.yaml").write_text((folder / "recipe.yaml").read_text().replace("count: 3", "count: many"))
    refused["arguments"] = rewright(folder, "run", "bad.yaml", "--run", "bad").errors.splitlines()[-1]
    print(json.dumps({"verdicts": verdicts, "trajectories": trajectories, "refused": refused, "tasks": tasks}))
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("environment")
    (folder / "desk_env.py").write_text(ENVIRONMENT)
    (folder / "house_env.py").write_text(HOUSE)
    (folder / "script.py").write_text(SCRIPT)
    path = ":".join([str(peers.ROOT / "src"), str(peers.ROOT / "tests"), str(folder)])
    script = f"import runpy; runpy.run_path({str(folder / 'script.py')!r}, run_name='__main__')"
    output = peers.run(script, folder, folder=folder, PYTHONPATH=path)
    return json.loads(output.splitlines()[-1])


@peers.needs_peers
def test_tools_keep_their_state_and_the_rubric_judges(found):
    verdicts = {row["trajectory_id"].split("/")[1]: row for row in found["verdicts"]}
    outcomes = {name: verdict["outcome"] for name, verdict in verdicts.items()}
    # 0 asks twice and is right, 1 asks once, 2 answers wrongly.
    assert outcomes == {
        "verifiers-desk_env-0": 1.0, "verifiers-desk_env-1": 0.75, "verifiers-desk_env-2": 0.25,
    }  # fmt: skip
    metrics = verdicts["verifiers-desk_env-1"]["metrics"]
    assert (metrics["right"], metrics["asked_twice"], metrics["turns"], metrics["reward"]) == (1.0, 0.0, 2.0, 0.75)
    results = [turn["results"] for turn in found["trajectories"][0]["turns"] if turn["results"]]
    assert [result[0]["content"] for result in results] == ["Ada is 0, asked 1", "Ada is 0, asked 2"]


@peers.needs_peers
def test_the_tasks_have_prompts_schemas_and_answers(found):
    task = json.loads(found["tasks"][1])
    assert task["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is name 1?"},
    ]
    (tool,) = task["tools"]
    assert tool["schema"]["function"]["name"] == "desk_look_up"
    assert tool["schema"]["function"]["parameters"]["properties"]["times"]["default"] == 1
    assert task["gold"]["answers"] == ["1"]
    assert task["metadata"]["arguments"] == {"count": 3}


@peers.needs_peers
def test_what_cannot_be_used_is_one_line(found):
    refused = found["refused"]
    assert "need a container" in refused["house_env"]
    assert "taskset 'missing_env' not found" in refused["missing_env"]
    assert "textarena" in refused["textarena"]
    assert "count: Input should be a valid integer" in refused["arguments"]
    for line in refused.values():
        assert line.startswith("error: ")


def test_a_task_file_cannot_name_an_environment(tmp_path: Path):
    schema = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
    base = {"id": "1", "messages": [{"role": "user", "content": "Q"}], "metadata": {"environment": "os"}}
    target = "rewright.benchmarks.verifiers.world:call"
    for row, word in (
        ({**base, "judge": "verifiers"}, "judge 'verifiers'"),
        ({**base, "tools": [{"schema": schema, "target": target, "data": {"environment": "os"}}]}, "target"),
    ):
        (tmp_path / "t.jsonl").write_text(json.dumps(row))
        with pytest.raises(InputError, match=f"{word}.*not for a task file"):
            load_tasks(tmp_path / "t.jsonl")
    gold = {**base, "judge": "exact", "gold": {"answers": ["1"]}}
    (tmp_path / "t.jsonl").write_text(json.dumps(gold))
    (tmp_path / "r.yaml").write_text(
        "stages: [synth, judge]\ntasks: {format: rewright, path: t.jsonl, judge: verifiers}\n"
    )
    rewright(tmp_path, "run", "r.yaml", "--run", "out", "--dry-run").refused("for tasks of the format verifiers")


def test_without_the_package_the_format_says_how_to_install_it(tmp_path: Path):
    rewright(tmp_path, "validate", "desk_env", "--format", "verifiers").refused("pip install verifiers")


def test_an_environment_needs_its_format(tmp_path: Path):
    (tmp_path / "r.yaml").write_text("tasks: {format: town, environment: desk_env}\n")
    rewright(tmp_path, "run", "r.yaml", "--dry-run").refused("environment: must be given with format: verifiers")
    (tmp_path / "r.yaml").write_text("tasks: {format: verifiers}\nstages: [synth]\n")
    rewright(tmp_path, "run", "r.yaml", "--dry-run").refused("tasks.environment is missing")
