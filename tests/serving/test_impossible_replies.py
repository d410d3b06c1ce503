"""Reward and search servers whose replies cannot be: an error that stops the stage, never a score or a passage."""

from __future__ import annotations

import pytest
from aiohttp import web

from rewright.core.errors import ServerError
from rewright.serving.reward_client import RewardClient
from rewright.tools.retriever import Retriever
from support.served import served


def answering(text: str) -> web.Application:
    """A server that answers every request with `text` as JSON."""

    async def answer(_: web.Request) -> web.Response:
        return web.Response(text=text, content_type="application/json")

    application = web.Application()
    application.router.add_post("/{path:.+}", answer)
    return application


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"scores": [1e300]}', "the score 1e+300: expected a number from -1e+06 to 1e+06"),
        ('{"scores": [1e999]}', "expected one finite number for each|not JSON"),
        ('{"scores": [true]}', "not a reply of a reward server"),
        ('{"scores": [1, 2]}', "2 scores for 1 sequences"),
        ('{"scores": [1], "more": "' + "x" * 2**21 + '"}', "the reply is larger than 1048576 bytes"),
    ],
)
def test_a_reward_server(text: str, said: str) -> None:
    with (
        served(lambda: answering(text)) as url,
        RewardClient(url, attempts=1) as client,
        pytest.raises(ServerError, match=said.replace("+", r"\+")),
    ):
        client.score([[1, 2]])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[[{"id": "1", "contents": "x"}], [1e999]]', "expected a finite number|not JSON"),
        ('[[{"id": "1", "contents": "' + "x" * (9 * 2**20) + '"}], [1.0]]', "the reply is larger than 8388608 bytes"),
    ],
)
async def test_a_search_server(text: str, said: str) -> None:
    with served(lambda: answering(text)) as url:
        searcher = Retriever(url, attempts=1)
        with pytest.raises(ServerError, match=said):
            await searcher.search("Kalo", 1, scores=True)
        await searcher.close()
