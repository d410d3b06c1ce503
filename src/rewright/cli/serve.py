"""The commands index, serve-search, serve-reward and serve-tools."""

from __future__ import annotations

import asyncio
import re
import time
from pathlib import Path
from typing import Annotated, Literal

import typer

from rewright.cli.offline import JsonOption
from rewright.cli.output import as_text, print_json

__all__ = ["register"]

Host = Annotated[str, typer.Option(help="Address to listen on. There is no authentication, so prefer loopback.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 selects a free port and prints it.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the app."""
    app.command()(index)
    app.command(name="serve-search")(serve_search)
    app.command(name="serve-reward")(serve_reward)
    app.command(name="serve-tools")(serve_tools)


def index(
    corpus: Annotated[Path, typer.Argument(help='JSONL file (or .jsonl.gz), one {"id": …, "contents": …} per line.')],
    *,
    out: Annotated[
        Path | None,
        typer.Option(help="Output folder (default: CORPUS.index beside the file). An existing index is replaced."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Build a search index from a corpus."""
    from rewright.core.progress import Bar
    from rewright.tools.search_index import build_index, read_corpus

    if out is None:
        out = corpus.with_name(re.sub(r"\.jsonl(\.gz)?$", "", corpus.name) + ".index")
    started = time.monotonic()
    with Bar("documents", 0) as bar:

        def progress() -> None:
            bar.total = bar.done + 1
            bar.step()

        count = build_index(read_corpus(corpus), out, where=str(corpus), on_document=progress)
    size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    seconds = time.monotonic() - started
    as_text(as_json)(f"{out}: {count} documents, {size / 1e6:.1f} MB, {seconds:.1f} s")
    if as_json:
        print_json({"documents": count, "bytes": size, "seconds": round(seconds, 3)})


def serve_search(
    folder: Annotated[Path, typer.Argument(help="Folder written by `rewright index`.")],
    *,
    host: Host = "127.0.0.1",
    port: Port = 8001,
) -> None:
    """Serve a search index: POST /search and /batch_search, compatible with common retrieval servers.

    Limits: 4096 characters per query; 1000 queries, a top_n of 1000 and 20,000 documents in total per request.
    """
    from rewright.net.server import serve
    from rewright.serving.search import search_application
    from rewright.tools.search_index import SearchIndex

    opened = SearchIndex.open(folder)
    asyncio.run(serve(search_application(opened), host, port, f"{len(opened)} documents of {folder}"))


def serve_reward(
    model: Annotated[Path, typer.Argument(help="Folder of a reward model, such as models/reward of a run.")],
    *,
    host: Host = "127.0.0.1",
    port: Port = 8002,
    dialect: Annotated[str | None, typer.Option(help="Dialect if the model has none.")] = None,
) -> None:
    """Serve a reward model: POST /score, GET /health.

    Limits per request: 1024 trajectories and 4,194,304 tokens (bytes for texts and messages).
    """
    from rewright.net.server import serve
    from rewright.serving.reward import open_scorer, reward_application

    scorer, renderer = open_scorer(model, dialect=dialect)
    asyncio.run(serve(reward_application(scorer, renderer, str(model)), host, port, f"reward model {model}"))


def serve_tools(
    source: Annotated[str, typer.Argument(metavar="RECIPE|TASKS", help="Recipe, task file, or tasks.format=NAME.")],
    changes: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="As for a recipe.")] = None,
    *,
    task: Annotated[str, typer.Option(help="With stdio: id of the task. Optional if all have the same tools.")] = "",
    transport: Annotated[Literal["stdio", "http"], typer.Option(help="stdio, or http (streamable HTTP).")] = "stdio",
    host: Host = "127.0.0.1",
    port: Port = 8003,
    sessions: Annotated[int, typer.Option(min=1, help="With http: sessions whose tools are open at once.")] = 256,
) -> None:
    """Serve the tools of tasks as an MCP server: each session has a state of its own.

    Over HTTP a session names its task in the address, as http://127.0.0.1:8003/mcp?task=ID. Inspect AI, verifiers and
    other clients of MCP can use the server, and so can tools.mcp of a recipe.
    """
    from rewright.core.errors import InputError
    from rewright.pipeline.migration import written_recipe
    from rewright.recipe.loader import load_recipe
    from rewright.recipe.overrides import override_of
    from rewright.serving.tools import ToolServer
    from rewright.tasks.from_recipe import load_recipe_tasks

    if task and transport == "http":
        raise InputError("--task is for stdio: over http a session names its task in the address, as /mcp?task=ID")
    if Path(source).suffix in (".yaml", ".yml"):
        recipe = written_recipe(Path(source), changes or [])
    else:
        recipe = load_recipe(None, [source if "=" in source else override_of("tasks", source), *(changes or [])])

    async def serve() -> None:
        from rewright.dialects import get_dialect
        from rewright.rollout.toolsets import open_toolsets, try_tools, with_recipe_tools

        loaded = load_recipe_tasks(recipe.tasks, recipe.judges)
        tasks = with_recipe_tools(loaded, recipe.tools, get_dialect(recipe.dialect))
        tools = open_toolsets(recipe.tools, recipe.sandbox, tool_seconds=recipe.limits.tool_seconds)
        async with ToolServer(tasks, tools, sessions=sessions) as server:
            await try_tools(tools, tasks)
            if transport == "stdio":
                await server.serve_stdio(task)
            else:
                await server.serve_http(host, port, what=f"tools of {len(tasks)} tasks")

    asyncio.run(serve())
