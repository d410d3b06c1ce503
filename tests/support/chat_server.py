"""A chat server on loopback that answers by a script: what OpenAI-compatible servers send, chosen by the test.

    with served(lambda: chat_server(reply)) as url:
        ...  # model.base_url is f"{url}/v1"

`reply` maps a request's body to the assistant's message; `finish_reason` and `usage` in it are the choice's and the
reply's. `says` and `calls` make such messages.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from aiohttp import web

__all__ = ["calls", "chat_server", "results_of", "said_by_user", "says"]

Body = dict[str, Any]
Reply = Callable[[Body], dict[str, Any]]


def chat_server(reply: Reply, *, seen: list[Body] | None = None) -> web.Application:
    """The application. `seen`: every body that arrives is appended."""

    async def chat(request: web.Request) -> web.Response:
        body = await request.json()
        if seen is not None:
            seen.append(body)
        message = {"role": "assistant", **reply(body)}
        usage = message.pop("usage", {"prompt_tokens": 1000 + len(json.dumps(body)), "completion_tokens": 5})
        usual = "tool_calls" if message.get("tool_calls") else "stop"
        choice = {"index": 0, "finish_reason": message.pop("finish_reason", usual), "message": message}
        return web.json_response(
            {"id": "1", "object": "chat.completion", "model": body["model"], "choices": [choice], "usage": usage}
        )

    application = web.Application()
    application.router.add_post("/v1/chat/completions", chat)
    return application


def says(text: str | None, **fields: Any) -> dict[str, Any]:
    """A message with text and no call."""
    return {"content": text, **fields}


def calls(name: str, text: str | None = None, /, **arguments: Any) -> dict[str, Any]:
    """A message with one call, and text beside it."""
    function = {"name": name, "arguments": json.dumps(arguments)}
    return {"content": text, "tool_calls": [{"id": "c1", "type": "function", "function": function}]}


def results_of(body: Body) -> list[str]:
    """The tool results in a request."""
    return [message["content"] for message in body["messages"] if message["role"] == "tool"]


def said_by_user(body: Body) -> str:
    """The last user message of a request."""
    return next(str(message["content"]) for message in reversed(body["messages"]) if message["role"] == "user")
