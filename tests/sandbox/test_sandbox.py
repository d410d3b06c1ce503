"""What a call in the sandbox returns, how it fails, and that the next one works. Isolation: test_sandbox_escapes."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from rewright.core.errors import InputError
from rewright.sandbox import ERROR_KINDS, Level, Sandbox, error_kind

LEVELS: list[Level] = ["strict", "process", "unsafe"]


@pytest.fixture(params=LEVELS)
async def box(request: pytest.FixtureRequest) -> AsyncIterator[Sandbox]:
    async with Sandbox(request.param, wall_seconds=60.0, output_chars=1000) as box:
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


async def test_a_value_or_message_that_is_cut_says_so(box: Sandbox) -> None:
    long = await box.run("'a' * 4000 + 'b' * 4000")
    assert long.content == "a" * 500 + "\n[... cut ...]\n" + "b" * 500
    raised = await box.run("raise ValueError('c' * 8000)")
    assert raised.content == "ValueError: " + "c" * 488 + "\n[... cut ...]\n" + "c" * 500
    value = await box.call("def f(): return 'a' * 4000 + 'b' * 4000", "f", {})
    assert value.content == "a" * 500 + "\n[... cut ...]\n" + "b" * 500


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


async def test_calls_share_the_processors_a_few_at_a_time() -> None:
    source = "import time\ndef f():\n  begun = time.monotonic_ns()\n  sum(range(10**6))\n"
    clock = source + "  return [begun, time.monotonic_ns()]"
    async with Sandbox("process", max_concurrent_calls=1, wall_seconds=60.0) as box:
        results = await asyncio.gather(*(box.call(clock, "f", {}) for _ in range(8)))
    spans = sorted(json.loads(result.content) for result in results)
    assert all(earlier[1] <= later[0] for earlier, later in itertools.pairwise(spans))


async def test_lost_fork_server_is_started_again() -> None:
    async with Sandbox("process") as box:
        source = "import os\ndef f(): return os.getppid()"
        first = await box.call(source, "f", {})
        os.kill(int(first.content), signal.SIGKILL)
        answers = [await box.call(source, "f", {}) for _ in range(3)]
        assert answers[-1].error is None
        assert answers[-1].content != first.content
        assert box.restarts == 1


async def gone(processes: Sequence[int]) -> None:
    """Wait until all of them have ended."""
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            descriptor = os.pidfd_open(process)
            ended = asyncio.Event()
            asyncio.get_running_loop().add_reader(descriptor, ended.set)
            await asyncio.wait_for(ended.wait(), 200.0)
            asyncio.get_running_loop().remove_reader(descriptor)
            os.close(descriptor)


def children(process: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


@pytest.mark.parametrize("level", LEVELS)
async def test_children_die_with_the_fork_server(level: Level) -> None:
    async with Sandbox(level) as box, box.session({"f": "def f(): return 1"}) as session:
        await session.call("f", {})
        assert box.process_id is not None
        living = children(box.process_id)
        assert living
        os.kill(box.process_id, signal.SIGKILL)
        await gone(living)


@pytest.mark.parametrize("level", LEVELS)
async def test_everything_dies_with_the_trainer(level: Level, tmp_path: Path) -> None:
    program = (
        "import asyncio, os\n"
        "from rewright.sandbox import Sandbox\n"
        "async def main():\n"
        f"    async with Sandbox({level!r}) as box, box.session({{'f': 'def f():\\n  while True: pass'}}) as session:\n"
        "        await session.call('f', {}, wall_seconds=0.1)\n"
        "        hanging = asyncio.create_task(session.call('f', {}))\n"
        "        async with box.session({'f': 'def f(): return 1'}) as second:\n"
        "            await second.call('f', {})\n"
        "            listed = f'/proc/{box.process_id}/task/{box.process_id}/children'\n"
        "            while len(children := open(listed).read().split()) < 2:  # until the hanging call has its child\n"
        "                await asyncio.sleep(0)\n"
        "            print(box.process_id, *children, flush=True)\n"
        "            os.kill(os.getpid(), 9)\n"
        "asyncio.run(main())\n"
    )
    trainer = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE, env={**os.environ, "TMPDIR": str(tmp_path)}
    )
    output, _ = await trainer.communicate()
    processes = [int(word) for word in output.split()]
    assert len(processes) >= 3
    await gone(processes)
    assert not any(tmp_path.iterdir())  # noqa: ASYNC240


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


async def test_closing_while_calls_wait_for_a_place() -> None:
    box = Sandbox("process", sessions=2, wall_seconds=60.0)
    calls = [asyncio.create_task(box.call("def f():\n  while True: pass", "f", {})) for _ in range(6)]
    async with box.session({"f": "def f(): return 1"}):
        await asyncio.wait(calls, timeout=0.1)
        await box.close()
        results = await asyncio.gather(*calls)
    assert {error_kind(result) for result in results} <= {"crashed", "sandbox"}
    assert (await box.run("1")).error == "sandbox: the sandbox is closed"
    await box.close()


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def resident(process: int) -> int:
    return int(Path(f"/proc/{process}/statm").read_text().split()[1])  # in pages


@pytest.mark.slow
async def test_soak() -> None:
    """10,000 trajectories with every kind of misbehaviour leave no process, no descriptor and no memory behind."""
    sources = [
        ("def f(): return 1", None),
        ("def f(): return [0] * 10**5", "output"),
        ("def f(): 1 / 0", "exception"),
        ("import os\ndef f(): os._exit(1)", "exited"),
        ("import ctypes\ndef f(): ctypes.string_at(0)", "crashed"),
        ("def f(): return bytearray(10**10)", "memory"),
        ("def f():\n  while True: pass", "timeout"),
    ]
    levels: list[Level] = ["strict", "process"]
    for level in levels:
        async with Sandbox(level, sessions=64, wall_seconds=60.0) as box:
            assert box.process_id is not None
            places = asyncio.Semaphore(128)
            sizes = []

            async def one(number: int, box: Sandbox = box, places: asyncio.Semaphore = places) -> None:
                hangs = number % 100 == 99
                source, kind = sources[-1] if hangs else sources[number % (len(sources) - 1)]
                async with places, box.session({"f": source}) as session:
                    for _ in range(2):
                        result = await session.call("f", {}, wall_seconds=0.05 if hangs else None)
                        assert error_kind(result) == kind, result

            for batch in range(5):
                await asyncio.gather(*(one(number) for number in range(1000)))
                sizes.append((open_files(), resident(os.getpid()), resident(box.process_id)))
                print(level, batch, sizes[-1], flush=True)
            assert sizes[-1][0] <= sizes[1][0] + 4
            assert sizes[-1][1] <= 1.1 * sizes[1][1] + 1024
            assert sizes[-1][2] <= 1.1 * sizes[1][2]
            assert box.restarts == 0


async def test_module_that_cannot_be_preloaded_is_named() -> None:
    box = Sandbox("process", preload=("math", "nonsuch as n"))
    with pytest.raises(InputError, match="cannot be imported: nonsuch: No module named 'nonsuch'"):
        await box.start()
    await box.close()


def test_wrong_settings_are_named() -> None:
    with pytest.raises(InputError, match="unknown level 'stric'; expected one of strict, process, unsafe"):
        Sandbox("stric")  # type: ignore[arg-type]
    for name, value in (
        *(("memory_mb", 0), ("memory_mb", 10**18), ("wall_seconds", float("nan")), ("wall_seconds", float("inf"))),
        *(("cpu_seconds", -1), ("disk_mb", 0), ("processes", 0), ("open_files", True), ("output_chars", "5")),
    ):
        with pytest.raises(InputError, match=f"{name} must be positive, not {value}"):
            Sandbox("process", **{name: value})  # type: ignore[arg-type]
