"""Trainable vLLM servers: token ids and log-probabilities from `/completions`, new weights through a file.

The weights are written to a safetensors file that the servers can read (in memory by default, so the servers run on
this machine; a shared folder serves several). Each server is paused, loads the file in all of its workers, and resumes.
The calls are those of vLLM's development server (`VLLM_SERVER_DEV_MODE=1`): `/pause`, `/collective_rpc`, `/resume`,
`/sleep`, `/wake_up`, `/health`, with the worker extension of `rewright.engines.vllm_worker`.

A server that dies is dropped. When it answers again it has its first weights, so it gets the current ones before it is
used. `make test-scale` runs it against vLLM 0.32; the other tests use a server of the same endpoints.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from rewright.core.errors import EngineError
from rewright.engines.base import Generation, NamedWeights, Request
from rewright.engines.gate import Gate
from rewright.engines.openai import OpenAIEngine
from rewright.engines.weight_file import WeightFile
from rewright.net.endpoint import Endpoint, EndpointError
from rewright.net.servers import Server

__all__ = ["VLLMServerEngine"]

PAUSE: Final = "/pause?mode=wait&clear_cache=true"


class VLLMServerEngine(OpenAIEngine):
    """One or several vLLM servers that take new weights (see the module's docstring).

    Args:
        base_url: address of the server, or several.
        model: the name under which they serve the model.
        folder: folder of the file with the weights, which the servers can read; default: memory, else the temporary
            folder.
        update_seconds: time limit of one call that changes a server, such as loading the weights.
        weights: `file`, or `nccl`: from GPU to GPU memory (`rewright.engines.vllm_transfer`, not tested).

    Other arguments are those of OpenAIEngine. Raises InputError for invalid arguments.
    """

    def __init__(
        self,
        base_url: str | Sequence[str],
        model: str,
        *,
        folder: str | Path | None = None,
        update_seconds: float = 600.0,
        weights: Literal["file", "nccl"] = "file",
        **options: Any,
    ) -> None:
        super().__init__(base_url, model, **{"mode": "completions", "log_probs": "processed", **options})
        self.weights_version: int | None = None
        self._file = WeightFile(folder)
        servers = self._endpoint.servers
        servers.strict, servers.check = True, self._rejoins
        self._controls = {server: self._control(server, update_seconds) for server in servers.all}
        self._loading = asyncio.Lock()
        self._source: Any = None
        self._transfers: dict[Server, Any] = {}
        if weights == "nccl":
            from rewright.engines.vllm_transfer import NCCLTransfer

            self._transfers = {
                server: NCCLTransfer(control.base_url, update_seconds) for server, control in self._controls.items()
            }
        self._gate = Gate()

    async def generate(self, request: Request) -> Generation:
        """Generate the next turn. Raises only EngineError, also if the server returns no log-probabilities."""
        async with self._gate.request():
            generation = await super().generate(request)
            return msgspec.structs.replace(generation, weights_version=self.weights_version)

    async def update_weights(self, named: NamedWeights, version: int) -> None:
        """Send the weights to all servers. Servers that fail are dropped; raises EngineError if none is left."""
        paused = not self._gate.is_open
        await self._gate.close()
        servers = self._endpoint.servers
        try:
            async with self._loading:
                if self._transfers:
                    from rewright.engines.vllm_transfer import NamedSource

                    self._source = NamedSource(named)
                else:
                    await asyncio.to_thread(self._file.write, named, version)
                self.weights_version = version
                loaded = await asyncio.gather(*(self._load(server) for server in servers.all), return_exceptions=True)
            for server, problem in zip(servers.all, loaded, strict=True):
                if problem is None:
                    servers.restore(server)
                elif isinstance(problem, EngineError):
                    servers.drop(server, str(problem))
                else:
                    raise problem
            if all(server.dropped for server in servers.all):
                raise next(problem for problem in loaded if problem is not None)
        finally:
            if not paused:
                self._gate.open()

    async def pause(self) -> None:
        """Complete the running requests and pause the servers; later requests wait for `resume`."""
        await self._gate.close()
        await self._all(PAUSE)

    async def resume(self) -> None:
        """Continue with the requests that wait."""
        await self._all("/resume")
        self._gate.open()

    async def sleep(self) -> None:
        """Complete the running requests; then the servers free their KV cache and keep their weights in CPU memory."""
        await self._gate.close()
        await self._all("/sleep?level=1")

    async def wake(self) -> None:
        """End `sleep`."""
        await self._all("/wake_up")
        self._gate.open()

    async def alive(self) -> bool:
        """Return True if a server that was not dropped answers."""
        live = [server for server in self._endpoint.servers.all if not server.dropped]
        return any(await asyncio.gather(*(self._healthy(server) for server in live)))

    async def close(self) -> None:
        """Close the connections, and delete the file with the weights."""
        await super().close()
        for control in self._controls.values():
            await control.close()
        self._file.delete()

    def _control(self, server: Server, seconds: float) -> Endpoint:
        """The endpoint of the development calls, which are beside /v1."""
        control = Endpoint(
            server.base_url.removesuffix("/v1"),
            headers=self._endpoint.headers,
            concurrency=4,
            timeout_seconds=seconds,
            attempts=3,
            first_wait_seconds=0.5,
            max_wait_seconds=5.0,
        )
        control.empty_replies = True
        return control

    async def _load(self, server: Server) -> None:
        """Have all workers of a server load the current weights. Raises EngineError."""
        control = self._controls[server]
        try:
            await control.post(PAUSE, {}, _ignore)
        except EndpointError as error:
            if error.status == 404:
                raise EngineError(f"{error.url}: expected a vLLM server with VLLM_SERVER_DEV_MODE=1") from None
            raise
        try:
            if server in self._transfers:
                await asyncio.to_thread(self._transfers[server].send, self._source)
            else:
                await control.post("/collective_rpc", {"method": "load_file", "args": [str(self._file.path)]}, _ignore)
        finally:
            await control.post("/resume", {}, _ignore)

    async def _all(self, path: str) -> None:
        """Call all servers that were not dropped; drop those that fail. Raises EngineError if none is left."""
        servers = self._endpoint.servers
        problem: EndpointError | None = None
        for server in servers.all:
            if not server.dropped:
                try:
                    await self._controls[server].post(path, {}, _ignore)
                except EndpointError as error:
                    problem = error
                    servers.drop(server, str(error))
        if problem is not None and all(server.dropped for server in servers.all):
            raise problem

    async def _healthy(self, server: Server) -> bool:
        control = self._controls[server]
        return await control.answers(control.servers.all[0], "/health")

    async def _rejoins(self, server: Server) -> bool:
        """Return True if a dropped server answers again and has loaded the current weights."""
        if not await self._healthy(server):
            return False
        if self.weights_version is not None:
            try:
                async with self._loading:
                    await self._load(server)
            except EngineError:
                return False
        return True


def _ignore(_: Any) -> None:
    """The reply says nothing that its status does not say."""
