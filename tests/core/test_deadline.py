"""A stage has a deadline of its own, whatever it is doing."""

from __future__ import annotations

import asyncio
import signal
import socket
from contextlib import suppress
from pathlib import Path

import pytest

from rewright.core.deadline import deadline
from rewright.core.errors import DeadlineError
from rewright.pipeline.run_directory import Run
from rewright.pipeline.runner import Pipeline
from rewright.recipe.loader import load_recipe


def busy() -> None:
    while True:
        with suppress(Exception):
            sum(range(1000))


async def patient() -> None:
    while True:
        with suppress(Exception):
            await asyncio.sleep(3600)


@pytest.mark.parametrize("work", [busy, lambda: asyncio.run(patient())])
def test_what_goes_on_for_ever_is_stopped_and_the_alarm_is_put_back(work: object) -> None:
    before = signal.getsignal(signal.SIGALRM)
    said = r"^the work did not finish within 0\.05 s \(some_seconds in the recipe\)$"
    with pytest.raises(DeadlineError, match=said), deadline("the work", 0.05, setting="some_seconds"):
        work()  # type: ignore[operator]
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_a_stage_that_waits_for_a_server_which_says_nothing(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/v1"
        model = f"model={{path: m, engine: openai, mode: chat, base_url: '{url}'}}"
        recipe = load_recipe(None, [model, "stage_seconds=0.5", "tasks.count=2", "stages=[synth]"])
        run = Run.create(tmp_path / "run", recipe, resume=False)
        with run.locked(), pytest.raises(DeadlineError, match=r"^stage synth did not finish within 0\.5 s"):
            Pipeline(run).run_all()
    assert not run.is_done("synth")
    assert list(run.trajectories) == []
