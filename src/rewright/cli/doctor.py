"""The command doctor: what works on this machine, and what to do about what does not."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rewright.cli import doctor_servers as servers
from rewright.cli.doctor_servers import Line
from rewright.cli.offline import JsonOption
from rewright.cli.output import print_json

if TYPE_CHECKING:
    from rewright.integrations.doctor import PluginState
    from rewright.sandbox.capabilities import Capabilities

__all__ = ["register"]

PACKAGES = {
    "torch": ("train", "models in this process, and training"),
    "transformers": ("train", "models in this process, tokenizers of served models, and training"),
    "trl": ("train", "training"),
    "peft": ("train", "lora_rank"),
    "datasets": ("train", "tasks from the Hugging Face Hub (hf:...)"),
    "verl": ("verl", "rl.backend: verl (or name another environment in rl.verl.python)"),
    "matplotlib": ("view", "curves and pictures as .png"),
    "pyarrow": ("bench", "task files in parquet"),
    "mcp": ("mcp", "tools of MCP servers"),
    "reasoning_gym": ("gym", "tasks in the format reasoning_gym"),
}
"""Optional packages: the extra that installs them, and what needs them."""
ADVICE = {
    "linux": "run Rewright on Linux (5.13 or newer), in a container or virtual machine elsewhere",
    "architecture": "use an x86_64 or aarch64 machine",
    "user namespaces": "allow them: sysctl user.max_user_namespaces=15000, and with AppArmor "
    "kernel.apparmor_restrict_unprivileged_userns=0",
    "seccomp": "use a kernel with CONFIG_SECCOMP_FILTER",
    "landlock": "use a kernel from 5.13 with landlock in its list of security modules (lsm=landlock,...)",
    "cgroups": "optional: mount cgroup v2, and delegate its memory controller to this user",
    "user": "run as a user who may change to another one, or accept that tool processes run as you",
}
"""What to do about a missing capability."""


def register(app: typer.Typer) -> None:
    """Add the command of this module to the app."""
    app.command()(doctor)


def doctor(
    place: Annotated[
        Path | None, typer.Argument(metavar="[RECIPE|RUN]", help="Also ask the servers of this recipe or run.")
    ] = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Show what works on this machine: sandbox, packages, accelerators and plug-ins, and how to get what is missing.

    With a recipe or a run, also whether its model servers answer, and whether they return token ids and log-probs, and
    which tools its MCP servers list.
    """
    from rewright.integrations.doctor import check_plugins
    from rewright.pipeline.environment import environment
    from rewright.sandbox.capabilities import capabilities

    asked = None if place is None else servers.server_reports(place)
    mcp = {} if place is None else servers.mcp_reports(place)
    found, about, states = capabilities(), environment(0), check_plugins()
    if as_json:
        plugins = {state.trainer: state.problem or state.installed for state in states}
        own: dict[str, Any] = {} if asked is None else {"servers": servers.as_json(asked)}
        own |= {"mcp": mcp} if mcp else {}
        print_json({"levels": list(found.levels), "refusal": found.refusal, "plugins": plugins, **about, **own})
        return
    pages = [
        ("Machine", _machine(found, about)),
        ("Packages", _packages(about["versions"])),
        ("Sandbox", _sandbox(found)),
        ("Trainers with a plug-in", [_plugin(state) for state in states]),
    ]
    if asked is not None:
        pages.append(("Model servers", servers.server_lines(asked)))
    if mcp:
        pages.append(("MCP servers", servers.mcp_lines(mcp)))
    print("\n\n".join(_section(title, lines) for title, lines in pages))


def _section(title: str, lines: list[Line]) -> str:
    width = max(len(line.name) for line in lines)
    text = [title]
    for line in lines:
        text.append(f"  {line.state:<8}{line.name:<{width}}  {line.detail}".rstrip())
        if line.advice:
            text.append(f"  {'':<8}{'':<{width}}  -> {line.advice}")
    return "\n".join(text)


def _machine(found: Capabilities, about: dict[str, Any]) -> list[Line]:
    lines = [
        Line("ok", "rewright", str(about["versions"].get("rewright", "not installed as a package"))),
        Line("ok", "python", f"{about['python']} ({sys.executable})"),
        Line("ok", "system", f"{found.system}, {about['processors']} processors"),
    ]
    if importlib.util.find_spec("torch") is None:
        return lines
    import torch

    if not torch.cuda.is_available():
        return [*lines, Line("none", "GPU", "models run and train on the CPU, in float32")]
    names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    return [*lines, Line("ok", "GPU", ", ".join(names))]


def _packages(versions: dict[str, str]) -> list[Line]:
    lines = []
    for name, (extra, use) in PACKAGES.items():
        if importlib.util.find_spec(name) is None:
            lines.append(Line("missing", name, f"for {use}", f"pip install 'rewright[{extra}]'"))
        elif name == "verl" and (problem := _verl_problem()) is not None:
            lines.append(Line("broken", name, f"{_version(name)}: {problem}", "use an environment of its own for it"))
        else:
            lines.append(Line("ok", name, f"{versions.get(name, _version(name))}, for {use}"))
    return lines


def _verl_problem() -> str | None:
    """Why verl does not start in this environment; None if it does."""
    from rewright.core.errors import InputError
    from rewright.training.verl.interpreter import check_interpreter
    from rewright.training.verl.settings import VerlSettings

    try:
        check_interpreter(VerlSettings(), ())
    except InputError as problem:
        return str(problem)
    return None


def _version(name: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(name.replace("_", "-"))
    except PackageNotFoundError:
        return "installed"


def _sandbox(found: Capabilities) -> list[Line]:
    lines = []
    for level in ("strict", "process", "unsafe"):
        works = level in found.levels
        detail = "starts here" if works else f"does not start here: {found.refusal}" if level == "strict" else "refused"
        advice = "set sandbox: process in the recipe for tools that you trust (docs/security.md)" if not works else ""
        lines.append(Line("ok" if works else "missing", f"level {level}", detail, advice))
    for item in found.items:
        need = "" if item.needed == "-" else f" (for level {item.needed})"
        advice = "" if item.present else ADVICE.get(item.name, "see docs/security.md")
        lines.append(Line("ok" if item.present else "missing", item.name, f"{item.detail}{need}", advice))
    return lines


def _plugin(state: PluginState) -> Line:
    if state.problem is not None:
        hint = (
            "reinstall the trainer in a version that docs/plugins.md names" if "does not load" in state.problem else ""
        )
        return Line("broken", state.trainer, state.problem, hint or state.problem.rpartition(": ")[2])
    if state.installed is None:
        return Line("none", state.trainer, "not installed", f"only if you train with it: pip install {state.trainer}")
    return Line("ok", state.trainer, f"{state.installed}, its plug-in loads")
