"""A conversation's environment, in the worker process of one trajectory (`call` is the target of the tools).

The tools of a model and of its simulated user work on one state, so both are called here.
"""

from __future__ import annotations

from typing import Any

from rewright.benchmarks.tau2.package import DOMAINS, domain, start

__all__ = ["ToolFailure", "call"]

for _name in DOMAINS:  # so that workers forked for a trajectory do not load them again
    domain(_name)


class ToolFailure(Exception):  # noqa: N818 - becomes an error result
    """A tool failed; the message is the package's own."""

    plain = True
    """The model is shown the message without the name of this class."""


_environments: dict[tuple[str, str, bool], Any] = {}
"""Environments of this worker process. A worker serves one trajectory."""


def call(data: dict[str, Any], /, **arguments: Any) -> str:
    """Run the tool `data["tool"]` for `data["requestor"]` and return its result as the package's text.

    Raises ToolFailure if the tool fails.
    """
    from tau2.data_model.message import ToolCall

    key = data["domain"], data["task"], data["solo"]
    if key not in _environments:
        _environments[key] = start(key[0], key[1], solo=key[2])
    asked = ToolCall(name=data["tool"], arguments=arguments, requestor=data["requestor"])
    reply = _environments[key].get_response(asked)
    if reply.error:
        raise ToolFailure(str(reply.content).removeprefix("Error: "))
    return str(reply.content)
