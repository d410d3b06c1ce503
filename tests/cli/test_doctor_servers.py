"""`rewright doctor RECIPE|RUN`: do its model servers answer, and what do they return."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from support.chat_server import chat_server, says
from support.in_process import Said, rewright
from support.served import served


def doctor(folder: Path, url: str, *more: str, model: str = "m") -> Said:
    (folder / "r.yaml").write_text(f"model: {{path: {model}, engine: openai, base_url: {url}}}\n")
    return rewright(folder, "doctor", "r.yaml", *more)


def section(said: Said) -> list[str]:
    assert said.code == 0, said.errors
    lines = said.output.partition("Model servers\n")[2].splitlines()
    assert lines
    return [" ".join(line.split()) for line in lines]


def listing(*names: str) -> web.Application:
    async def models(request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": name, "object": "model"} for name in names]})

    def reply(body: dict[str, Any]) -> dict[str, Any]:
        if body["model"] not in names:
            raise web.HTTPNotFound(text=json.dumps({"error": {"message": "no such model"}}))
        return says("Hi")

    application = chat_server(reply)
    application.router.add_get("/v1/models", models)
    return application


def test_a_chat_server(tmp_path: Path) -> None:
    with served(lambda: listing("m", "other")) as url:
        lines = section(doctor(tmp_path, f"{url}/v1"))
        assert lines == [
            f"ok model {url}/v1 answers; models: m, other",
            "ok model generates a token of m",
            "none token ids not returned: mode chat; repairs and evaluations do not need them",
            "none log-probs not returned; only RL needs them",
        ]
        found = json.loads(doctor(tmp_path, f"{url}/v1", "--json").output)["servers"]["model"]
        assert [(one["models"], one["token_ids"], one["problem"]) for one in found] == [(["m", "other"], False, None)]


def test_a_server_that_returns_token_ids_and_log_probs(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from support.vllm_like_server import vllm_like_server

    with served(lambda: vllm_like_server("pico", [])) as url:
        lines = section(doctor(tmp_path, f"{url}/v1", model="pico"))
    assert lines[0] == f"ok model {url}/v1 answers; does not list its models"
    assert lines[2:] == ["ok token ids taken and returned: mode completions, RL", "ok log-probs returned"]


def test_a_server_that_is_not_there_and_a_model_that_it_does_not_have(tmp_path: Path) -> None:
    lines = section(doctor(tmp_path, "http://127.0.0.1:9/v1"))
    assert lines == [
        "missing model http://127.0.0.1:9/v1: cannot connect (Connection refused): expected a running server at this "
        "address",
        "-> start the server, or change model.base_url",
    ]
    with served(lambda: listing("other")) as url:
        lines = section(doctor(tmp_path, f"{url}/v1"))
    assert lines[0].endswith("answers; models: other")
    assert lines[1].startswith(f"missing model generates m: POST {url}/v1/chat/completions: HTTP 404: no such model")
    assert lines[2] == "-> set model.path to one of its models"


def test_a_model_in_this_process_and_places_that_are_no_recipe(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("model: pico\n")
    assert section(rewright(tmp_path, "doctor", "r.yaml")) == [
        "none model no server: pico runs in this process (engine hf)"
    ]
    rewright(tmp_path, "doctor", ".").refused(". is not a run directory: expected a recipe file, or a folder with")
    rewright(tmp_path, "doctor", "none.yaml").refused("none.yaml")
    assert "Model servers" not in rewright(tmp_path, "doctor").output
