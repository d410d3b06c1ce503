"""Run in the environment of vLLM: every engine on vLLM against transformers, before and after new weights.

    python engines_of_vllm.py [URL]        # URL: of a server that serves pico as `policy`

Prints one JSON object: for each engine its comparisons, and what a killed one says.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch

from rewright.core.errors import EngineError
from rewright.dialects import get_dialect
from rewright.engines.base import Request, Sampling
from rewright.engines.embedded import HFSettings
from rewright.engines.hf import HFEngine
from rewright.engines.loading import load_model, load_tokenizer, resolve_path
from rewright.engines.vllm_async import open_async
from rewright.engines.vllm_engine import engine_arguments
from rewright.engines.vllm_options import VLLMOptions
from rewright.engines.vllm_server import VLLMServerEngine
from rewright.engines.vllm_stepped import open_stepped
from rewright.rendering.renderer import Renderer
from rewright.tasks.worlds import town


def children(parent: int) -> list[int]:
    """The processes that a process has started."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            stat = (entry / "stat").read_text() if entry.name.isdigit() else ""
        except OSError:
            continue
        if stat and int(stat.rsplit(")", 1)[1].split()[1]) == parent:
            found.append(int(entry.name))
    return found


async def main(url: str | None) -> dict[str, Any]:
    settings = HFSettings(path="pico")
    tokenizer, model = load_tokenizer(settings), load_model(settings)
    first = {name: value.clone() for name, value in model.state_dict().items()}
    hf = HFEngine(model, tokenizer, slots=8)
    dialect = get_dialect("hermes")
    renderer = Renderer(tokenizer, dialect)
    prompts = [
        tuple(renderer.prompt_ids(dialect.messages(task), dialect.schemas(task)))
        for task in town.generate("train", 8, seed=5, profile="short")
    ]
    arguments = engine_arguments(
        VLLMOptions(max_model_len=1024), resolve_path("pico"), tokenizer=None, dtype="float32",
        trust_remote_code=False, utilization=0.3,
    )  # fmt: skip

    async def compared(engine: Any) -> dict[str, Any]:
        """Greedy turns of 8 tasks: are they those of transformers, how far are log-probabilities, which version."""
        requests = [
            Request((), (), Sampling(temperature=0.0, max_tokens=48, stop=("</tool_call>",)), token_ids=ids)
            for ids in prompts
        ]
        ours = await asyncio.gather(*(engine.generate(one) for one in requests))
        theirs = await asyncio.gather(*(hf.generate(one) for one in requests))
        gaps = [
            abs(left - right)
            for one, two in zip(ours, theirs, strict=True)
            for left, right in zip(one.log_probs or (), two.log_probs or (), strict=False)
        ]
        return {
            "equal": [(one.token_ids, one.text, one.stop) for one in ours]
            == [(two.token_ids, two.text, two.stop) for two in theirs],
            "gap": max(gaps, default=0.0),  # a server returns none at temperature 0
            "version": ours[0].weights_version,
        }

    async def examined(engine: Any) -> list[dict[str, Any]]:
        model.load_state_dict(first)
        hf.refresh()
        generator = torch.Generator().manual_seed(1)
        rows = [await compared(engine)]
        for version in (0, 1):
            with torch.no_grad():
                for weight in model.parameters():
                    weight.add_(torch.randn(weight.shape, generator=generator) * 0.1 * weight.std())
            hf.refresh()
            rows.append(await compared(engine))  # the engine has the weights of before
            waiting = None
            if version:
                await engine.pause()
                waiting = asyncio.create_task(
                    engine.generate(Request((), (), Sampling(max_tokens=1, seed=1), token_ids=prompts[0]))
                )
                await asyncio.sleep(0)
            await engine.update_weights(((name, one.detach()) for name, one in model.named_parameters()), version)
            if waiting is not None:
                assert not waiting.done()
                await engine.resume()
                rows.append({"waited": (await waiting).weights_version})
            rows.append(await compared(engine))
        # A seed means the same alone and in a batch, and another seed something else.
        sampled = [
            Request((), (), Sampling(max_tokens=40, seed=one % 8), token_ids=prompts[one % 8]) for one in range(16)
        ]
        made = [one.token_ids for one in await asyncio.gather(*(engine.generate(one) for one in sampled))]
        rows.append({"seeded": made[:8] == made[8:] and (await engine.generate(sampled[3])).token_ids == made[3]})
        return rows

    said: dict[str, Any] = {}
    if url is not None:
        server = VLLMServerEngine(url, "policy")
        said["server"] = await examined(server)
        await server.update_weights(first.items(), 0)
        await server.close()
    stepped = open_stepped(arguments, tokenizer, name="policy")
    said["colocate"] = await examined(stepped)
    await stepped.close()
    said["closed"] = await failure(stepped, prompts[0])
    before = set(children(os.getpid()))
    engine = open_async(arguments, tokenizer, name="policy")
    said["vllm"] = await examined(engine)
    long = Sampling(max_tokens=900, seed=1, stop=("never written",))
    running = [asyncio.create_task(failure(engine, ids, long)) for ids in prompts]
    await asyncio.sleep(0.05)
    for pid in set(children(os.getpid())) - before:
        os.kill(pid, signal.SIGKILL)
    said["killed"] = sorted(set(await asyncio.gather(*running)))
    said["alive"] = await engine.alive()
    said["update"] = await failure(engine, prompts[0], update=list(first.items()))
    await engine.close()
    await hf.close()
    return said


async def failure(engine: Any, ids: tuple[int, ...], sampling: Sampling | None = None, update: Any = None) -> str:
    """The message with which a request (or an update of the weights) fails."""
    try:
        if update is not None:
            await engine.update_weights(update, 9)
        else:
            await engine.generate(Request((), (), sampling or Sampling(max_tokens=1), token_ids=ids))
    except EngineError as error:
        return str(error)
    return ""


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else None))))
