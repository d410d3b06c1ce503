"""The section on servers of the command doctor."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, NamedTuple

from rewright.core.errors import InputError
from rewright.engines.served import OpenAISettings
from rewright.engines.server_check import ServerReport, check_servers
from rewright.engines.settings import ModelSettings
from rewright.pipeline.migration import written_recipe
from rewright.recipe.schema import Recipe
from rewright.tools.mcp.listing import list_tools

__all__ = ["Line", "as_json", "mcp_lines", "mcp_reports", "server_lines", "server_reports"]


class Line(NamedTuple):
    """One line of the page. `advice`: what to do; empty if nothing is missing."""

    state: str
    name: str
    detail: str
    advice: str = ""


def server_reports(place: Path) -> dict[str, list[ServerReport] | str]:
    """Return the reports on the servers of each model of a recipe or a run; a text for a model that is not served.

    Raises InputError for a recipe that cannot be read.
    """
    recipe = _recipe(place)
    models: dict[str, ModelSettings] = {"model": recipe.model}
    if recipe.repair.model is not None:
        models["repair.model"] = recipe.repair.model
    if recipe.user.model is not None:
        models["user.model"] = recipe.user.model
    found: dict[str, list[ServerReport] | str] = {}
    for key, model in models.items():
        if isinstance(model, OpenAISettings):
            model.check(key)
            found[key] = asyncio.run(check_servers(model))
        else:
            found[key] = f"{model.path} runs in this process (engine {model.engine})"
    return found


def server_lines(found: dict[str, list[ServerReport] | str]) -> list[Line]:
    """The lines of the page."""
    lines = []
    for key, reports in found.items():
        if isinstance(reports, str):
            lines.append(Line("none", key, f"no server: {reports}"))
        else:
            lines += [line for report in reports for line in _lines(key, report)]
    return lines


def as_json(found: dict[str, list[ServerReport] | str]) -> dict[str, Any]:
    """The same for `--json`; None for a model that is not served."""
    return {key: None if isinstance(reports, str) else reports for key, reports in found.items()}


def mcp_reports(place: Path) -> dict[str, list[str] | str]:
    """Return the tools of each MCP server of a recipe or a run; a text, one line, for one that cannot be reached.

    Raises InputError for a recipe that cannot be read, and for a stored one, whose commands are not started.
    """
    found: dict[str, list[str] | str] = {}
    for name, server in _recipe(place).tools.mcp.items():
        key = f"tools.mcp.{name}"
        if place.is_dir() and server.url is None:
            found[key] = "of a stored run: not started; give doctor the recipe file instead"
            continue
        try:
            found[key] = [tool.shown for tool in list_tools({name: server})[name]]
        except InputError as problem:
            found[key] = str(problem).removeprefix(f"{key}: ")
    return found


def mcp_lines(found: dict[str, list[str] | str]) -> list[Line]:
    """The lines of the page on MCP servers."""
    return [
        Line("missing", key, tools, f"start the server, or change {key}")
        if isinstance(tools, str)
        else Line("ok", key, f"{len(tools)} tools: {', '.join(tools)}" if tools else "no tools")
        for key, tools in found.items()
    ]


def _recipe(place: Path) -> Recipe:
    file = place / "recipe.yaml" if place.is_dir() else place
    if place.is_dir() and not file.exists():
        raise InputError(f"{place} is not a run directory: expected a recipe file, or a folder with recipe.yaml")
    return written_recipe(file)


def _lines(key: str, report: ServerReport) -> list[Line]:
    if report.problem is not None:
        return [
            Line("missing", key, f"{report.address}: {report.problem}", f"start the server, or change {key}.base_url")
        ]
    models = "does not list its models" if report.models is None else f"models: {', '.join(report.models) or 'none'}"
    lines = [Line("ok", key, f"{report.address} answers; {models}")]
    if report.generates is not None:
        listed = report.models is not None and report.model not in report.models
        advice = f"set {key}.path to one of its models" if listed else "read the server's log"
        return [*lines, Line("missing", f"{key} generates", f"{report.model}: {report.generates}", advice)]
    lines.append(Line("ok", f"{key} generates", f"a token of {report.model}"))
    if report.token_ids:
        lines.append(Line("ok", "token ids", "taken and returned: mode completions, RL"))
    else:
        lines.append(Line("none", "token ids", "not returned: mode chat; repairs and evaluations do not need them"))
    detail = "returned" if report.log_probs else "not returned; only RL needs them"
    return [*lines, Line("ok" if report.log_probs else "none", "log-probs", detail)]
