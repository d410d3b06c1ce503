"""Which turn signals tell the truth on real tasks: an audit of "gold with errors" on ComplexFuncBench's replay.

    python experiments/audit_complexfuncbench.py            # about half an hour; the same command continues
    python experiments/audit_complexfuncbench.py --quick    # minutes: few turns, to see that it works

The policy is a script and no model: it makes the gold calls in order, three in ten with a wrong argument first, and
makes half of the wrong ones good. So the audit shows what signals say about real calls and responses, and nothing about
a language model. It is served on loopback as any OpenAI-compatible server is. The page is docs/audit.md.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

from aiohttp import web
from audit_town import begun_or_resumed

from rewright.audit.report import as_json, as_text
from rewright.audit.run import AuditOptions
from rewright.audit.signals import read_signal
from rewright.benchmarks.complexfuncbench.scripted import GoldWithErrors
from rewright.core.errors import InputError
from rewright.core.records import Task
from rewright.engines.base import Request, Sampling
from rewright.net.server import application, listening
from rewright.pipeline.run_directory import Run
from rewright.pipeline.runner import Pipeline
from rewright.recipe.loader import load_recipe
from rewright.tasks.loading import load_tasks
from rewright.tools.mcp.background import LoopThread

RESULTS: Final = Path(__file__).parent / "results" / "audit_complexfuncbench.json"
MODEL: Final = "gold-with-errors"
SELECTION: Final = "all,characters=400"
SIGNALS: Final = ("matched", "score", "{name: branch, k: 4}", "{name: branch, k: 4, form: outcome}")


def served_policy(tasks: Sequence[Task], errors: float, again: float) -> web.Application:
    """The policy as a chat server."""
    policy = GoldWithErrors(tasks, errors, again=again)

    async def reply(request: web.Request) -> Any:
        body = await request.json()
        sampling = Sampling(seed=body.get("seed"))
        made = await policy.generate(Request(tuple(body["messages"]), tuple(body.get("tools", ())), sampling))
        calls = [
            {
                "id": f"call{number}",
                "type": "function",
                "function": {"name": call.name, "arguments": json.dumps(call.arguments)},
            }
            for number, call in enumerate(made.calls or ())
        ]
        message = {"role": "assistant", "content": made.text, **({"tool_calls": calls} if calls else {})}
        choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if calls else "stop"}
        return {"id": "1", "object": "chat.completion", "model": MODEL, "choices": [choice]}

    async def models(_: web.Request) -> Any:
        return {"object": "list", "data": [{"id": MODEL, "object": "model"}]}

    return application({"POST /v1/chat/completions": reply, "GET /v1/models": models})


@contextmanager
def serving(app: web.Application, port: int) -> Iterator[str]:
    """The address of the application, served in a thread while the block runs. Raises InputError for a taken port."""
    thread, opened = LoopThread(MODEL), AsyncExitStack()
    try:
        yield thread.submit(opened.enter_async_context(listening(app, port=port))).result()
    finally:
        thread.submit(opened.aclose()).result()
        thread.stop()


def evaluated(folder: Path, url: str, options: argparse.Namespace) -> Run:
    """A run with two attempts at each task, judged."""
    recipe = load_recipe(
        None,
        [
            "name=audit-complexfuncbench",
            "stages=[eval_base]",
            "model.engine=openai",
            f"model.path={MODEL}",
            f"model.base_url={url}/v1",
            "tasks.format=complexfuncbench",
            f"tasks.path={json.dumps(SELECTION)}",
            "eval.tasks.format=complexfuncbench",
            f"eval.tasks.path={json.dumps(SELECTION)}",
            "eval.temperature=1.0",
            "eval.n=2",
            "limits.turns=30",
            "limits.trajectory_tokens=null",
            f"eval.tasks.limit={40 if options.quick else 1000}",
        ],
    )
    run = Run.create(folder, recipe, resume=(folder / "recipe.yaml").exists())
    with run.locked():
        Pipeline(run).run_all()
    return run


def main() -> None:
    """Run what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--errors", type=float, default=0.3, help="probability of a wrong call")
    parser.add_argument("--again", type=float, default=0.5, help="probability that a wrong call is made good")
    parser.add_argument("--signal", action="append", default=[], help="a further signal, as for rewright audit")
    parser.add_argument("--turns", type=int, default=600)
    parser.add_argument("--port", type=int, default=8931)
    parser.add_argument("--work", type=Path, default=Path("runs") / "audit_complexfuncbench")
    parser.add_argument("--out", type=Path, help=f"default: {RESULTS.name} beside the other results; with --quick none")
    parser.add_argument("--quick", action="store_true", help="40 tasks, 30 turns")
    options = parser.parse_args()
    if options.out is None and not options.quick:
        options.out = RESULTS
    try:
        tasks = load_tasks(SELECTION, "complexfuncbench")
        with serving(served_policy(tasks, options.errors, options.again), options.port) as url:
            run = evaluated(options.work / ("quick" if options.quick else "run"), url, options)
            wanted = AuditOptions(
                signals=[read_signal(text) for text in (*SIGNALS, *options.signal)],
                stage="eval-base",
                turns=30 if options.quick else options.turns,
                alternatives="policy",
            )
            with run.locked():
                result = begun_or_resumed(run, wanted)
    except InputError as problem:
        raise SystemExit(f"audit_complexfuncbench.py: {problem}") from None
    for line in as_text(result):
        print(line)
    if options.out is not None:
        options.out.write_text(json.dumps(as_json(result), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
