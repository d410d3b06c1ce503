"""Attempts to break out, to hang, to spoil the next call: each contained, a typed error, and the next call works.

Written so that a regression does as little harm as possible: loops are bounded, and signals to everybody are sent only
by a process that is alone in its namespace.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import socket
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from rewright.core.records import ToolResult
from rewright.sandbox import Sandbox, error_kind
from rewright.sandbox.capabilities import capabilities

OFFERED = capabilities()
pytestmark = pytest.mark.skipif(not OFFERED.strict, reason=f"level strict is not offered here: {OFFERED.refusal}")

HANG_SECONDS = 200.0  # reached only where a limit has failed


@pytest.fixture(params=["strict", "process"])
async def box(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Sandbox]:
    monkeypatch.setenv("REWRIGHT_TEST_KEY", "s3cr3t")
    async with Sandbox(request.param, wall_seconds=60.0, memory_mb=128, disk_mb=8, output_chars=2000) as box:
        yield box


async def attempt(box: Sandbox, source: str, wall_seconds: float | None = None) -> ToolResult:
    """Run a program, and see that the sandbox is as good as new afterwards."""
    async with asyncio.timeout(HANG_SECONDS):
        result = await box.run(source, wall_seconds=wall_seconds)
        assert (await box.call("import os\ndef f(): return os.listdir('.')", "f", {})).content == "[]"
    return result


BOMBS = {
    "fork bomb": ("import os, time\nfor _ in range(300):\n    if os.fork() == 0: time.sleep(60)", "exception"),
    "thread bomb": (
        "import threading, time\nfor _ in range(10**4): threading.Thread(target=time.sleep, args=(60,)).start()",
        "exception",
    ),
    "memory bomb": ("blocks = []\nwhile True: blocks.append(bytearray(2**20))", "memory"),
    "memory bomb in C": ("import numpy\nnumpy.ones(10**9)", "memory"),
    "disk bomb": ("with open('x', 'wb') as file:\n  while True: file.write(bytes(2**20))", "exception"),
    "descriptor bomb": ("files = []\nwhile True: files.append(open('/dev/null'))", "exception"),
    "endless loop": ("while True: pass", "timeout"),
    "endless loop in C": ("sum(range(10**15))", "timeout"),
    "endless regular expression": ("import re\nre.match('(a+)+$', 'a' * 60 + 'b')", "timeout"),
    "endless loop in a signal handler": (
        "import signal, time\n"
        "def forever(*_):\n  while True: pass\n"
        "for number in range(1, 32):\n"
        "  if number not in (9, 19): signal.signal(number, forever)\n"
        "signal.setitimer(signal.ITIMER_REAL, 0.01)\ntime.sleep(60)",
        "timeout",
    ),
    "endless finally": (
        "def f():\n  try: f()\n  finally: f()\nf()",
        "timeout",
    ),
    "sleep": ("import time\ntime.sleep(60)", "timeout"),
    "waits for input": ("input()", "exception"),
    "exit": ("import os\nos._exit(0)", "exited"),
    "exit from a thread": (
        "import threading, os\nthreading.Thread(target=os._exit, args=(7,)).start()\ninput\nwhile 1: 1",
        "exited",
    ),
    "closes its descriptors": ("import os\nos.closerange(0, 100)\nwhile True: pass", "exited"),
    "segmentation fault": ("import ctypes\nctypes.string_at(0)", "crashed"),
    "deep recursion in C": ("a = []\nfor _ in range(10**6): a = [a]\nimport json\njson.dumps(a)", "exception"),
    "raises BaseException": ("raise BaseException('x')", "exception"),
    "raises KeyboardInterrupt": ("raise KeyboardInterrupt", "exception"),
    "huge number as text": ("print(10 ** 10000)", "exception"),
    "gigantic power": ("10 ** 10 ** 10", "timeout"),
    "compiler bomb": ("eval('(' * 10**5)", "exception"),
}


@pytest.mark.parametrize("name", BOMBS)
async def test_bombs_and_hangs_end_with_a_typed_error(box: Sandbox, name: str) -> None:
    source, kind = BOMBS[name]
    result = await attempt(box, source, 0.3 if kind == "timeout" else None)
    assert error_kind(result) == kind, result


@pytest.mark.parametrize(
    "source",
    [
        "while True: print('x' * 1000)",
        "import os\nwhile True: os.write(1, bytes(10**6))",
        "import os\nos.write(2, b'y' * 10**6)\nprint('z' * 10**6)",
    ],
)
async def test_huge_output_is_cut(box: Sandbox, source: str) -> None:
    result = await attempt(box, source)
    assert len(result.content) < 2100
    assert "[... cut ...]" in result.content


async def test_binary_output_is_text(box: Sandbox) -> None:
    result = await attempt(box, "import os\nos.write(1, bytes(range(256)))\nprint('\\udc80')")
    assert result.error is None
    result.content.encode()


async def test_secrets_are_out_of_sight(box: Sandbox, tmp_path: Path) -> None:
    secret = tmp_path / "key.pem"
    secret.write_text("s3cr3t")
    places = [str(secret), "/etc/shadow", "/etc/passwd", "/proc/self/environ", f"/proc/{os.getpid()}/environ"]
    places += [f"/proc/{os.getpid()}/root{secret}", f"/proc/self/root{secret}", str(Path(__file__))]
    places.append(str(Path.home() / ".bashrc"))
    result = await attempt(
        box,
        "import os\n"
        f"for place in {places!r}:\n"
        "  try: print('READ', place, open(place).read())\n"
        "  except OSError: pass\n"
        f"for folder in {['/proc', str(Path.home()), str(tmp_path), '/etc', '/var', '/run', '/home']!r}:\n"
        "  try: print('LISTED', folder, [n for n in os.listdir(folder) if n not in ('.pyenv', 'ld.so.cache')])\n"
        "  except OSError: pass\n"
        "print(dict(os.environ))\n",
    )
    assert "s3cr3t" not in result.content
    assert "READ" not in result.content
    for line in result.content.splitlines():
        assert not line.startswith("LISTED") or line.endswith("[]"), line


async def test_nothing_is_written_outside(box: Sandbox, tmp_path: Path) -> None:
    inside, package = tmp_path / "mine.txt", Path(os.__file__).parent
    inside.write_text("untouched")
    result = await attempt(
        box,
        "import os, shutil\n"
        "def tries():\n"
        f"  yield 'write', lambda: open({str(inside)!r}, 'a').write('x')\n"
        f"  yield 'create', lambda: open({str(tmp_path / 'new')!r}, 'w')\n"
        f"  yield 'library', lambda: open({str(package / 'rewright_was_here.py')!r}, 'w')\n"
        f"  yield 'patch', lambda: open({os.__file__!r}, 'a')\n"
        f"  yield 'delete', lambda: os.unlink({str(inside)!r})\n"
        f"  yield 'mode', lambda: os.chmod({str(inside)!r}, 0o777)\n"
        f"  yield 'symbolic link', lambda: (os.symlink({str(inside)!r}, 's'), open('s', 'w').write('x'))\n"
        f"  yield 'hard link', lambda: os.link({str(inside)!r}, 'h')\n"
        "  yield 'link to a library', lambda: os.link(os.__file__, 'l')\n"
        f"  yield 'rename', lambda: os.rename({str(inside)!r}, 'r')\n"
        "  yield 'up', lambda: open('../../up', 'w')\n"
        "  yield 'root', lambda: open('/up', 'w')\n"
        "  yield 'device', lambda: os.mknod('d', 0o060777, 0)\n"
        "  yield 'chroot', lambda: os.chroot('.')\n"
        "for name, step in tries():\n"
        "  try: step(); print('DID', name)\n"
        "  except OSError as error: pass\n"
        "print('end')\n",
    )
    assert result.content == "end\n"
    assert inside.read_text() == "untouched"
    assert not (tmp_path / "new").exists()
    assert not (package / "rewright_was_here.py").exists()


async def test_folders_without_end_are_removed_and_cost_nobody_else_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deeper than recursion, paths and open descriptors reach; folders that nobody may enter; links that lead out."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    outside.mkdir()
    (outside / "kept").write_text("kept")
    source = (
        f"import os\nos.symlink({str(outside)!r}, 'out')\nos.mkdir('closed', 0)\n"
        "for _ in range(1500):\n  open('file', 'w').close(); os.mkdir('d', 0o300); os.chdir('d')\n"
    )
    async with asyncio.timeout(HANG_SECONDS), Sandbox("process", wall_seconds=60.0) as box:
        assert (await box.run(source)).error is None
        assert (await box.run("1 + 1")).content == "2"
        assert box.restarts == 0
    assert not any(tmp_path.iterdir())  # noqa: ASYNC240
    assert (outside / "kept").read_text() == "kept"


async def test_no_network(box: Sandbox) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as hidden:
        server.setblocking(False)
        port = server.getsockname()[1]
        hidden.bind(b"\0rewright-test")
        hidden.listen()
        hidden.setblocking(False)
        result = await attempt(
            box,
            "import socket, urllib.request, ctypes\n"
            "def tries():\n"
            f"  yield 'tcp', lambda: socket.create_connection(('127.0.0.1', {port}), 1)\n"
            f"  yield 'url', lambda: urllib.request.urlopen('http://127.0.0.1:{port}/', timeout=1)\n"
            "  yield 'name', lambda: socket.getaddrinfo('example.com', 80)\n"
            "  yield 'udp', lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', 9))\n"
            "  yield 'unix', lambda: socket.socket(socket.AF_UNIX).connect(b'\\0rewright-test')\n"
            "  yield 'pair', lambda: socket.socketpair(type=socket.SOCK_DGRAM)[0].sendto(b'x', b'\\0rewright-test')\n"
            "  yield 'raw', lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)\n"
            "  yield 'netlink', lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)\n"
            "  yield 'packet', lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)\n"
            "for name, step in tries():\n"
            "  try: step(); print('DID', name)\n"
            "  except OSError as error: pass\n"
            "print('end')\n",
        )
        assert result.content == "end\n"
        for listener in (server, hidden):
            with pytest.raises(BlockingIOError):
                listener.accept()


async def test_other_processes_are_out_of_reach(box: Sandbox) -> None:
    victim = os.getpid()
    result = await attempt(
        box,
        "import ctypes, fcntl, os, resource, signal, socket\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "def check(value):\n"
        "  if value < 0: raise OSError(ctypes.get_errno(), 'refused')\n"
        "def by_descriptor():\n"
        "  ours, theirs = socket.socketpair()\n"
        f"  fcntl.fcntl(ours, fcntl.F_SETOWN, {victim})\n"
        "def tries():\n"
        f"  yield 'kill', lambda: os.kill({victim}, 0)\n"
        "  yield 'kill the parent', lambda: os.kill(os.getppid() or 10**6, 0)\n"
        f"  yield 'kill the group', lambda: os.killpg({os.getpgrp()}, 0)\n"
        f"  yield 'trace', lambda: check(libc.ptrace(16, {victim}, 0, 0))\n"
        "  yield 'trace me', lambda: check(libc.ptrace(0, 0, 0, 0))\n"
        f"  yield 'limits', lambda: resource.prlimit({victim}, resource.RLIMIT_CORE, (0, 0))\n"
        f"  yield 'priority', lambda: os.setpriority(os.PRIO_PROCESS, {victim}, 5)\n"
        f"  yield 'pidfd', lambda: os.pidfd_open({victim})\n"
        f"  yield 'memory', lambda: check(libc.process_vm_readv({victim}, 0, 0, 0, 0, 0))\n"
        "  yield 'signal by descriptor', by_descriptor\n"
        "for name, step in tries():\n"
        "  try: step(); print('DID', name)\n"
        "  except (OSError, ValueError) as error: pass\n"
        "if os.getpid() == 1:\n"
        "  try: os.kill(-1, signal.SIGKILL)\n"
        "  except OSError: pass\n"
        "print('end')\n",
    )
    assert result.content == "end\n"


async def test_privileges_are_not_to_be_had(box: Sandbox) -> None:
    result = await attempt(
        box,
        "import ctypes, os, resource\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "def check(value):\n"
        "  if value < 0: raise OSError(ctypes.get_errno(), 'refused')\n"
        "def tries():\n"
        "  yield 'user namespace', lambda: check(libc.unshare(0x10000000))\n"
        "  yield 'clone into one', lambda: check(libc.syscall(56, 0x10000011, 0, 0, 0, 0))\n"
        "  yield 'mount', lambda: check(libc.mount(b'none', b'.', b'tmpfs', 0, None))\n"
        "  yield 'remount', lambda: check(libc.mount(b'none', b'/', None, 32 | 4096, None))\n"
        "  yield 'user', lambda: os.setuid(12345)\n"
        "  yield 'group', lambda: os.setgroups([0])\n"
        "  yield 'host name', lambda: check(libc.sethostname(b'x', 1))\n"
        "  yield 'keys', lambda: check(libc.syscall(248, b'user', b'a', b'b', 1, -3))\n"
        "  yield 'io_uring', lambda: check(libc.syscall(425, 8, 0))\n"
        "  yield 'bpf', lambda: check(libc.syscall(321, 0, 0, 0))\n"
        "  yield 'shared memory', lambda: check(libc.shmget(0, 4096, 0o1600))\n"
        "  yield 'memory file', lambda: os.memfd_create('x')\n"
        "  yield 'program', lambda: os.execv('/bin/true', ['true'])\n"
        "  yield 'raise a limit', lambda: resource.setrlimit(resource.RLIMIT_AS, (-1, -1))\n"
        "  yield 'lower a limit', lambda: print(end='') or 1 / 0\n"
        "for name, step in tries():\n"
        "  try: step(); print('DID', name)\n"
        "  except (OSError, ValueError, ZeroDivisionError) as error: pass\n"
        "print('end')\n",
    )
    assert result.content == "end\n"


async def test_results_are_never_unpickled(box: Sandbox, tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {tmp_path / 'pwned'}",)

    load = pickle.dumps(Payload())
    async with box.session({"f": f"def f():\n  return {load!r}"}) as session:
        assert (await session.call("f", {})).content == str(load)
    source = (
        "import os, struct\ndef f():\n"
        f"  load = {load!r}\n"
        "  for number in range(3, 60):\n"
        "    try: os.write(number, struct.pack('>I', len(load)) + load)\n"
        "    except OSError: pass\n"
    )
    forged = await box.call(source, "f", {})
    assert error_kind(forged) == "protocol"
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(
    "frame",
    [
        b"\xff\xff\xff\xff",
        b"\x00\x00\x00\x05[1,2]",
        b"\x00\x00\x07\xd0" + b"[" * 2000,
        b'\x00\x00\x00\x14{"id": 99, "value":1}',
        b'\x00\x00\x00\x0c{"id": NaN  }',
    ],
)
async def test_forged_frames_are_refused(box: Sandbox, frame: bytes) -> None:
    source = (
        "import os\ndef f():\n"
        "  for number in range(3, 60):\n"
        f"    try: os.write(number, {frame!r})\n"
        "    except OSError: pass\n"
        "  while True: pass"
    )
    async with asyncio.timeout(HANG_SECONDS), box.session({"f": source}) as session:
        assert error_kind(await session.call("f", {})) == "protocol"


async def ended(process: int) -> None:
    """Wait for the end of a process that is not a child of this one."""
    with contextlib.suppress(ProcessLookupError):
        descriptor = os.pidfd_open(process)
        over = asyncio.Event()
        asyncio.get_running_loop().add_reader(descriptor, over.set)
        await asyncio.wait_for(over.wait(), HANG_SECONDS)
        asyncio.get_running_loop().remove_reader(descriptor)
        os.close(descriptor)


def descendants(process: int) -> list[int]:
    """The living descendants of a process of this machine."""
    try:
        text = Path(f"/proc/{process}/task/{process}/children").read_text()
    except OSError:
        return []
    children = [int(word) for word in text.split()]
    return children + [below for child in children for below in descendants(child)]


async def test_children_die_with_their_session_where_processes_are_allowed() -> None:
    source = (
        "import os, time\n"
        "started = 0\n"
        "for _ in range(50):\n"
        "  try: process = os.fork()\n"
        "  except BlockingIOError: break\n"
        "  if process == 0:\n"
        "    os.setsid()\n"
        "    try: os.fork()\n"
        "    except BlockingIOError: pass\n"
        "    os.setsid() if os.getpgrp() != os.getpid() else None\n"
        "    time.sleep(60)\n"
        "  started += 1\n"
        "print(started)\n"
    )
    async with Sandbox("strict", processes=8, wall_seconds=60.0, prefork=0) as box:
        server = box.process_id
        assert server is not None
        async with box.session() as session:
            result = await session.run(source)
            assert 1 <= int(result.content) < 8
            assert 2 <= len(descendants(server)) <= 8
            below = descendants(server)
        for process in below:
            await ended(process)
        assert (await box.run("1 + 1")).content == "2"


async def test_cpu_time_is_limited() -> None:
    async with Sandbox("strict", wall_seconds=30.0, cpu_seconds=1.0) as box:
        assert error_kind(await box.run("while True: pass")) == "cpu"
        assert (await box.run("1 + 1")).content == "2"


async def test_sessions_do_not_see_each_other() -> None:
    async with Sandbox("strict") as box, box.session() as first, box.session() as second:
        # The private disk is the working folder; /tmp leads there too, unless the interpreter is beneath it.
        write = "open('note', 'w').write('x'); import os; os.listdir()"
        assert (await first.run(write)).content == "['note']"
        assert (await second.run("import os; (os.listdir(), os.getpid())")).content == "([], 1)"


async def test_network_where_it_is_allowed() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"HTTP/1.0 200 OK\r\n\r\nhello")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    fetch = f"import urllib.request\nurllib.request.urlopen('http://localhost:{port}/').read().decode()"
    async with server, Sandbox("strict", network=True, wall_seconds=60.0) as box:
        assert (await box.run(fetch)).content == "hello"
        hidden = await box.run("import socket\nsocket.socket(socket.AF_UNIX)")
        assert hidden.error == "exception: PermissionError: [Errno 1] Operation not permitted"
