"""A pool of processes runs whatever module the caller names: within limits, or with the user's own environment."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rewright.core.errors import WorkerError
from rewright.workers import pool

WORK = """
import os, socket
from pathlib import Path

prepared = []

def prepare(what, **_):
    prepared.append(what)
    return {"early": what} if what == "early" else None

def answer(what, value=None):
    if what == "loop":
        while True:
            pass
    if what == "raise":
        raise KeyError(value)
    if what == "die":
        os._exit(7)
    if what == "write":
        Path(value).write_text("x")
    if what == "connect":
        socket.create_connection(("127.0.0.1", 9))
    if what == "memory":
        return {"size": len(bytearray(4 * 1024**3))}
    return {"prepared": prepared[-1], "value": value, "key": os.environ.get("POOL_KEY"), "process": os.getpid()}
"""


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """A module with `prepare` and `answer`, by its name."""
    name = f"pool_work_{abs(hash(request.node.name))}"
    (tmp_path / f"{name}.py").write_text(WORK)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("POOL_KEY", "5")
    return name


def test_a_guarded_worker_answers_without_the_users_environment(work: str) -> None:
    first, second = (pool.call_guarded(work, {"what": "echo", "value": value}) for value in (1, [2]))
    assert (first["value"], second["value"], first["prepared"], first["key"]) == (1, [2], "echo", None)
    assert first["process"] == second["process"] != os.getpid()


@pytest.mark.parametrize(
    ("what", "cause", "said"),
    [
        ("loop", "time", "takes more than 0.3 s"),
        ("raise", "raised", "KeyError: 'value'"),
        ("die", "died", r"ended its process \(exit status 7\)"),
        ("write", "raised", "PermissionError: writing files is refused"),
        ("connect", "raised", r"PermissionError: socket\."),
        ("memory", "memory", "needs more than 3 GB of memory"),
    ],
)
def test_what_a_guarded_worker_does_not_do(work: str, tmp_path: Path, what: str, cause: str, said: str) -> None:
    value = str(tmp_path / "written") if what == "write" else "value"
    with pytest.raises(pool.RequestError, match=said) as failed:
        pool.call_guarded(work, {"what": what, "value": value}, cpu_seconds=0.3)
    assert failed.value.cause == cause
    assert not (tmp_path / "written").exists()
    assert pool.call_guarded(work, {"what": "echo"})["prepared"] == "echo"  # the next request has a worker


def test_an_unguarded_worker_has_the_users_environment_and_a_limit_in_real_time(work: str, tmp_path: Path) -> None:
    pool.call_unguarded(work, {"what": "write", "value": str(tmp_path / "written")}, 30)
    assert (tmp_path / "written").exists()
    assert pool.call_unguarded(work, {"what": "echo"}, 30)["key"] == "5"
    assert pool.call_unguarded(work, {"what": "early"}, 30) == {"early": "early"}
    for what, cause in (("loop", "time"), ("raise", "raised"), ("die", "died")):
        with pytest.raises(pool.RequestError) as failed:
            pool.call_unguarded(work, {"what": what}, 0.3)
        assert failed.value.cause == cause


def test_a_module_that_cannot_be_imported_is_an_error_of_the_worker() -> None:
    with pytest.raises(WorkerError, match="could not start: ModuleNotFoundError: No module named 'no_such_work'"):
        pool.call_guarded("no_such_work", {})
