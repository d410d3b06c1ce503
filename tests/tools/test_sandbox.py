"""What a call in the sandbox returns, how it fails, and that the next one works. Isolation: test_sandbox_escapes."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator

import pytest

from rewright.errors import InputError
from rewright.tools import ERROR_KINDS, Sandbox, error_kind

LEVELS = ["strict", "process", "unsafe"]


@pytest.fixture(params=LEVELS)
async def box(request: pytest.FixtureRequest) -> AsyncIterator[Sandbox]:
    async with Sandbox(request.param, wall_seconds=20.0, output_chars=1000) as box:
        yield box


async def test_value_is_text_as_is_or_json(box: Sandbox) -> None:
    source = "def f(x): return x"
    assert (await box.call(source, "f", {"x": "plain 'text'"})).content == "plain 'text'"
    assert (await box.call(source, "f", {"x": {"größe": [1, 2.5, None, True]}})).content == (
        '{"größe": [1, 2.5, null, true]}'
    )
    assert (await box.call("def f(): return {1, 1}", "f", {})).content == "{1}"
    assert (await box.call("def f(): return {(1, 2): 3}", "f", {})).content == "{(1, 2): 3}"
    assert (await box.call("def f(): return None", "f", {})).content == "null"


@pytest.mark.parametrize(
    ("source", "arguments", "kind", "words"),
    [
        ("def f(x, y=1): return x", {"z": 1}, "arguments", "expected: x, y (optional)"),
        ("def f(x): return 1 + x", {"x": "a"}, "exception", "TypeError: unsupported operand"),
        ("def f(): raise KeyError('k')", {}, "exception", "KeyError: 'k'"),
        ("def f(): return f()", {}, "exception", "RecursionError"),
        ("def f(:", {}, "source", "not valid Python"),
        ("def g(): pass", {}, "source", "defines no function"),
        ("import nonsuch\ndef f(): pass", {}, "exception", "No module named 'nonsuch'"),
        ("def f(): raise SystemExit(4)", {}, "exited", "exit(4)"),
        ("import os\ndef f(): os._exit(3)", {}, "exited", "status 3"),
        ("import os\ndef f(): os.abort()", {}, "crashed", "died of SIG"),
        ("import os\ndef f(): os.closerange(3, 100)", {}, "exited", ""),
        ("def f(): return 'x' * 5000", {}, "output", "5000 characters; the limit is 1000"),
        ("class E(Exception):\n  def __str__(self): 1/0\ndef f(): raise E", {}, "exception", "E: "),
    ],
)
async def test_failure_is_a_result_and_the_next_call_works(
    box: Sandbox, source: str, arguments: dict[str, object], kind: str, words: str
) -> None:
    result = await box.call(source, "f", arguments)
    assert error_kind(result) == kind
    assert kind in ERROR_KINDS
    assert words in (result.error or "")
    assert len(result.content) <= 1100
    assert (await box.call("def f(): return 1", "f", {})).content == "1"


async def test_timeout_ends_the_child_and_the_session_goes_on_with_a_fresh_one(box: Sandbox) -> None:
    source = "count = 0\ndef f(stop=True):\n  global count\n  count += 1\n  while not stop: pass\n  return count"
    async with box.session({"f": source}) as session:
        assert (await session.call("f", {})).content == "1"
        assert (await session.call("f", {})).content == "2"
        late = await session.call("f", {"stop": False}, wall_seconds=0.1)
        assert error_kind(late) == "timeout"
        assert late.seconds >= 0.1
        assert (await session.call("f", {})).content == "1"


async def test_each_source_has_a_module_of_its_own(box: Sandbox) -> None:
    sources = {
        "first": "import json\nhelper = 1\ndef first(): return helper",
        "second": "helper = 2\ndef second(): return [helper, 'json' in globals()]",
    }
    async with box.session(sources) as session:
        assert (await session.call("first", {})).content == "1"
        assert (await session.call("second", {})).content == "[2, false]"


async def test_sessions_share_nothing(box: Sandbox) -> None:
    spoil = "import sys, builtins\ndef f():\n  sys.modules['json'] = None; builtins.len = None; return 'done'"
    read = "import json\ndef f(): return json.dumps(len('abc'))"
    async with box.session({"f": spoil}) as spoilt, box.session({"f": read}) as clean:
        assert (await clean.call("f", {})).content == "3"
        await spoilt.call("f", {})
        assert (await clean.call("f", {})).content == "3"
    assert (await box.call(read, "f", {})).content == "3"


async def test_random_numbers_are_the_same_in_every_session(box: Sandbox) -> None:
    source = "import random\ndef f(): return random.random()"
    first, second = await box.call(source, "f", {}), await box.call(source, "f", {})
    assert first.content == second.content


async def test_lone_surrogates_do_not_reach_the_records(box: Sandbox) -> None:
    result = await box.call(r"def f(): return 'a\ud800b'", "f", {})
    assert result.content.encode() == b"a?b"


async def test_many_sessions_at_once_keep_their_own_answers() -> None:
    async with Sandbox("process", sessions=32, wall_seconds=60.0) as box:

        async def one(number: int) -> list[str]:
            async with box.session({"f": "state = []\ndef f(x):\n  state.append(x)\n  return state"}) as session:
                return [(await session.call("f", {"x": number})).content for _ in range(3)]

        answers = await asyncio.gather(*(one(number) for number in range(100)))
    assert answers == [[f"[{n}]", f"[{n}, {n}]", f"[{n}, {n}, {n}]"] for n in range(100)]


async def test_lost_fork_server_is_started_again() -> None:
    async with Sandbox("process") as box:
        source = "import os\ndef f(): return os.getppid()"
        first = await box.call(source, "f", {})
        os.kill(int(first.content), signal.SIGKILL)
        answers = [await box.call(source, "f", {}) for _ in range(3)]
        assert answers[-1].error is None
        assert answers[-1].content != first.content
        assert box.restarts == 1


async def test_cancelled_call_leaves_a_usable_session() -> None:
    async with Sandbox("process") as box, box.session({"f": "def f(hang):\n  while hang: pass\n  return 1"}) as session:
        assert (await session.call("f", {"hang": False})).content == "1"
        task = asyncio.create_task(session.call("f", {"hang": True}))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await session.call("f", {"hang": False})).content == "1"


def test_a_sandbox_survives_its_event_loop() -> None:
    box = Sandbox("process")

    async def use() -> str:
        return (await box.call("def f(): return 7", "f", {})).content

    assert asyncio.run(use()) == "7"
    assert asyncio.run(use()) == "7"
    asyncio.run(box.close())


async def test_closing_the_sandbox_ends_every_process() -> None:
    box = Sandbox("process")
    source = "import os\ndef f(): return os.getpid()"
    session = box.session({"f": source})
    child = int((await session.call("f", {})).content)
    await box.close()
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


def test_wrong_settings_are_named() -> None:
    with pytest.raises(InputError, match="unknown level 'stric'; expected one of strict, process, unsafe"):
        Sandbox("stric")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="memory_mb must be positive, not 0"):
        Sandbox("process", memory_mb=0)
