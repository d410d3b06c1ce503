"""Quotas that belong to the user as a whole, and kernel memory that no limit of a process counts (docs/security.md).

Each attack is bounded, and ends by itself where a limit has failed. What is looked at is the outside.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import platform
import resource
import sys
import textwrap
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from rewright.sandbox import Sandbox
from rewright.sandbox.capabilities import capabilities
from rewright.sandbox.worker import kernel

OFFERED = capabilities()
pytestmark = pytest.mark.skipif(not OFFERED.strict, reason=f"level strict is not offered here: {OFFERED.refusal}")
needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can become a user of its own")
on_x86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="names system calls by their numbers on x86-64")

SECONDS = 60.0


@pytest.fixture(params=["strict", "process"])
async def box(request: pytest.FixtureRequest) -> AsyncIterator[Sandbox]:
    async with Sandbox(request.param, wall_seconds=SECONDS, memory_mb=256, disk_mb=8, open_files=256) as box:
        yield box


def user_of(box: Sandbox) -> int:
    """The user that a sandbox's children are outside."""
    return int(status(box)["Uid"].split()[0])


def status(box: Sandbox) -> dict[str, str]:
    """What the kernel says about the fork server, which shares its user with the children."""
    lines = Path(f"/proc/{box.process_id}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def outside(user: int, look: Callable[[], int]) -> int:
    """What a process of `user` without privileges finds: a number up to 255."""
    process = os.fork()
    if process == 0:
        found = 255
        try:
            if user != os.getuid():
                os.setresuid(user, user, user)
            kernel.drop_capabilities()
            found = look()
        finally:
            os._exit(found)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def pages_of_a_new_pipe() -> int:
    """16, or 2 for a user over the quota for pipes."""
    read, write = os.pipe()
    size = fcntl.fcntl(write, fcntl.F_GETPIPE_SZ)
    os.close(read)
    os.close(write)
    return size // resource.getpagesize()


TIMERS = """
import ctypes, os, signal
libc = ctypes.CDLL(None, use_errno=True)
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGRTMIN})
timer = ctypes.c_void_p()
made = sum(libc.timer_create(1, None, ctypes.byref(timer)) == 0 for _ in range(2000))
for _ in range(2000): os.kill(os.getpid(), signal.SIGRTMIN)
made
"""


async def test_timers_and_queued_signals_leave_the_users_quota_alone(box: Sandbox) -> None:
    async with box.session() as session:
        assert (await session.run(TIMERS)).content == "0"
        assert int(status(box)["SigQ"].partition("/")[0]) < 1000
        assert outside(user_of(box), lambda: made_timers(100)) == 100


def made_timers(count: int) -> int:
    """How many POSIX timers this process gets."""
    timer = kernel.ctypes.c_void_p()
    number = {"x86_64": 222, "aarch64": 107}[kernel.MACHINE]
    for _ in range(count):
        kernel.syscall("timer_create", number, 1, None, kernel.ctypes.byref(timer))
    return count


PIPES = """
import fcntl, os
pipes = []
try:
    for _ in range(110):
        pipes += os.pipe()
        fcntl.fcntl(pipes[-1], fcntl.F_SETPIPE_SZ, 1 << 20)
except OSError as error: pass
len(pipes)
"""


async def test_pipes_leave_the_users_quota_alone(box: Sandbox) -> None:
    """110 pipes of a megabyte are more than `pipe-user-pages-soft` allows to a user."""
    async with box.session() as session:
        assert (await session.run(PIPES)).content == "0"
        assert outside(user_of(box), pages_of_a_new_pipe) == 16


async def test_pipes_where_processes_are_allowed_stay_small() -> None:
    source = (
        "import os\nread, write = os.pipe()\nif os.fork() == 0: os.write(write, b'child'); os._exit(0)\n"
        "print(os.read(read, 5))"
    )
    async with Sandbox("strict", processes=4, wall_seconds=SECONDS) as box:
        assert (await box.run(source)).content == "b'child'\n"
        assert (await box.run(PIPES)).content == "2"  # one pipe, whose size cannot be changed


COPIES = """
import os, shutil, threading
with open('a', 'wb') as file: file.write(b'x' * 100_000)
for name in ('sendfile', 'copy_file_range'):
    with open('a', 'rb') as source, open('b', 'wb') as target:
        try:
            if name == 'sendfile': os.sendfile(target.fileno(), source.fileno(), 0, 1000)
            else: os.copy_file_range(source.fileno(), target.fileno(), 1000)
            print('DID', name)
        except OSError as error: pass
shutil.copyfile('a', 'c')
print(open('c', 'rb').read() == b'x' * 100_000)
"""


async def test_files_are_copied_without_the_kernels_hidden_pipes(box: Sandbox) -> None:
    """sendfile and copy_file_range hold a pipe for every thread that has used them."""
    assert (await box.run(COPIES)).content == "True\n"


LOCKS = """
import fcntl
file = open('locked', 'wb')
for place in range(20_000, 0, -2): fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
'held'
"""


def descendants(process: int) -> set[int]:
    text = Path(f"/proc/{process}/task/{process}/children").read_text()
    children = {int(word) for word in text.split()}
    return children.union(*(descendants(child) for child in children))


async def test_record_locks_take_no_memory_of_the_kernel(box: Sandbox) -> None:
    async with box.session() as session:
        assert (await session.run(LOCKS)).content == "held"
        assert box.process_id is not None
        holders = [int(line.split()[-4]) for line in Path("/proc/locks").read_text().splitlines()]  # noqa: ASYNC240
        assert not descendants(box.process_id) & set(holders)


DATABASE = """
import sqlite3
first, second = sqlite3.connect('d.sqlite'), sqlite3.connect('d.sqlite')
first.execute('create table t (x)'); first.commit()
second.execute('insert into t values (42)')
try: first.execute('pragma busy_timeout=0'); first.execute('insert into t values (1)')
except sqlite3.OperationalError as error: print(error)
second.commit()
first.execute('select x from t').fetchall()
"""


async def test_a_database_in_a_file_works_without_record_locks(box: Sandbox) -> None:
    assert (await box.run(DATABASE)).content == "database is locked\n[(42,)]"


async def test_record_locks_are_refused_where_several_processes_would_rely_on_them() -> None:
    async with Sandbox("strict", processes=4, wall_seconds=SECONDS) as box:
        result = await box.run(LOCKS)
        assert result.error == "exception: PermissionError: [Errno 1] Operation not permitted"


WAITING = """
import asyncio, select
try: select.epoll(); print('DID')
except OSError as error: pass
async def main():
    import socket
    ours, theirs = socket.socketpair()
    reader, _ = await asyncio.open_connection(sock=ours)
    theirs.send(b'hello')
    return await reader.readexactly(5)
asyncio.run(main())
"""


async def test_event_loops_work_without_epoll_and_its_watches(box: Sandbox) -> None:
    assert (await box.run(WAITING)).content == "b'hello'"


# By number on x86-64: everything else that counts against a user, or takes kernel memory that nothing counts.
REFUSED = {
    "add_key": (248, b"user", b"a", b"b", 1, -3),
    "request_key": (249, b"user", b"a", None, -3),
    "keyctl": (250, 1, None),
    "inotify_init": (253,),
    "inotify_init1": (294, 0),
    "fanotify_init": (300, 0, 0),
    "mq_open": (240, b"queue", 0o102, 0o600, None),
    "msgget": (68, 0, 0o1600),
    "semget": (64, 0, 1, 0o1600),
    "shmget": (29, 0, 4096, 0o1600),
    "memfd_create": (319, b"x", 0),
    "memfd_secret": (447, 0),
    "userfaultfd": (323, 1),
    "io_setup": (206, 1, bytes(8)),
    "io_uring_setup": (425, 8, bytes(256)),
    "perf_event_open": (298, bytes(128), 0, -1, -1, 0),
    "bpf": (321, 0, bytes(64), 64),
    "pidfd_open": (434, 1, 0),
    "mlock": (149, 0, 0),
    "mlock2": (325, 0, 0, 0),
    "mlockall": (151, 2),
    "unshare": (272, 0x10000000),
    "setns": (308, 0, 0),
    "vmsplice": (278, 1, None, 0, 0),
    "splice": (275, 0, None, 1, None, 1, 0),
    "tee": (276, 0, 1, 1, 0),
    "mknod": (133, b"fifo", 0o010600, 0),
    "mknodat": (259, -100, b"fifo", 0o010600, 0),
    "setxattr": (188, b".", b"user.a", b"b", 1, 0),
    "quotactl": (179, 0, None, 0, None),
    "setpriority": (141, 0, 0, 5),
    "sched_setscheduler": (144, 0, 0, bytes(4)),
    "sched_setattr": (314, 0, bytes(48), 0),
    "ioprio_set": (251, 1, 0, 0),
    "timer_create": (222, 1, None, bytes(8)),
    "epoll_create1": (291, 0),
    "sendmsg": (46, 0, bytes(56), 0),
    "setsockopt": (54, 0, 1, 7, bytes(4), 4),
    "pipe": (22, bytes(8)),
    "pipe2": (293, bytes(8), 0),
    "landlock_create_ruleset": (444, None, 0, 1),
    "mmap of huge pages": (9, 0, 1 << 21, 3, 0x40022, -1, 0),
    "mmap of locked pages": (9, 0, 4096, 3, 0x2022, -1, 0),
    "fcntl F_SETLEASE": (72, 1, 1024, 0),
    "fcntl F_NOTIFY": (72, 1, 1026, 1),
    "fcntl F_SETPIPE_SZ": (72, 1, 1031, 1 << 20),
    "fcntl F_OFD_SETLK": (72, 1, 37, bytes(32)),
    "ioctl FIOASYNC": (16, 1, 0x5452, bytes(4)),
    "seccomp": (317, 1, 0, None),
}


@on_x86
async def test_no_other_quota_of_the_user_can_be_reached(box: Sandbox) -> None:
    """The kernel's code is not entered: the filter itself answers (EPERM, ENOSYS, and ENOTTY for ioctl)."""
    result = await box.run(
        "import ctypes\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        f"for name, (number, *arguments) in {REFUSED!r}.items():\n"
        "  arguments = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]\n"
        "  found = libc.syscall(ctypes.c_long(number), *arguments)\n"
        "  if found != -1 or ctypes.get_errno() not in (1, 38, 25): print(name, found, ctypes.get_errno())\n"
        "print('end')\n"
    )
    assert result.content == "end\n"


async def test_every_limit_of_a_process_is_decided(box: Sandbox) -> None:
    """docs/security.md has a line for each of `getrlimit`'s list; a new one of Python's has to be decided."""
    source = "import resource as r\n{n: r.getrlimit(getattr(r, n)) for n in dir(r) if n.startswith('RLIMIT_')}"
    found = eval((await box.run(source)).content)
    now = {name: resource.getrlimit(getattr(resource, name)) for name in found}
    nothing = ("CORE", "MEMLOCK", "MSGQUEUE", "NICE", "RTPRIO")
    assert {name: found.pop(f"RLIMIT_{name}") for name in nothing} == dict.fromkeys(nothing, (0, 0))
    assert found.pop("RLIMIT_SIGPENDING") == (16, 16)
    assert found.pop("RLIMIT_NOFILE") == found.pop("RLIMIT_OFILE") == (256, 256)
    assert found.pop("RLIMIT_FSIZE") == (8 << 20, 8 << 20)
    assert 0 < found["RLIMIT_AS"][0] == found.pop("RLIMIT_AS")[1]
    assert 0 < found.pop("RLIMIT_CPU")[1] < 310
    soft, hard = found.pop("RLIMIT_NPROC")
    assert soft == hard > 0
    assert soft == 32 if box.level == "strict" else soft < int(Path("/proc/sys/kernel/pid_max").read_text())  # noqa: ASYNC240
    for name in ("DATA", "RSS", "STACK", "RTTIME", "LOCKS"):
        assert found.pop(f"RLIMIT_{name}", None) in (now.get(f"RLIMIT_{name}"), None)
    assert not found


def reachable(name: str) -> bool:
    """True where everybody may enter every folder above a file."""
    return all(folder.stat().st_mode & 0o001 for folder in Path(name).resolve().parents)


async def run_as(user: int | None, source: str) -> str:
    """What a program prints, as root or as another user."""
    other = {} if user is None else {"user": user, "group": user, "extra_groups": []}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", textwrap.dedent(source), stdout=asyncio.subprocess.PIPE, cwd="/", **other
    )
    output, _ = await asyncio.wait_for(process.communicate(), 200.0)
    return output.decode()


MANY_THREADS = """
import asyncio, os, resource
from pathlib import Path
resource.setrlimit(resource.RLIMIT_NPROC, (80, 80))
from rewright.sandbox import Sandbox

ATTACK = '''
import threading
threading.stack_size(65536)
wait, count = threading.Event(), 0
try:
    for _ in range(100): threading.Thread(target=wait.wait, args=(30,), daemon=True).start(); count += 1
except RuntimeError: pass
count
'''

def forked():
    process = os.fork()
    if process == 0:
        os.close(write)
        os.read(read, 1)  # until the last of them has been started
        os._exit(7)
    return process

async def main():
    async with Sandbox(LEVEL, wall_seconds=60.0, prefork=0) as box:
        sessions = [box.session() for _ in range(4)]
        results = [await session.run(ATTACK) for session in sessions]
        print(int(results[0].content) > 20)
        children = Path(f"/proc/{box.process_id}/task/{box.process_id}/children").read_text().split()
        print({os.stat(f"/proc/{child}/environ").st_uid for child in children})
        mine = [forked() for _ in range(6)]
        os.write(write, b"x" * len(mine))
        print({os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in mine})
        for session in sessions: await session.close()

read, write = os.pipe()
asyncio.run(main())
"""


@needs_root
@pytest.mark.parametrize("level", ["strict", "process"])
async def test_threads_leave_processes_to_the_user(level: str) -> None:
    """A user with 80 processes: the last of them stay free however many threads the sandboxes start."""
    if not reachable(sys.executable):
        pytest.skip("the interpreter is out of an ordinary user's reach")
    found = await run_as(54321, f"LEVEL = {level!r}\n{MANY_THREADS}")
    # Whoever is not dumpable belongs to root in /proc: nobody may trace it, and a crash of it is handed to nobody.
    assert found == "True\n{0}\n{7}\n"


@needs_root
@pytest.mark.parametrize("level", ["strict", "process"])
async def test_the_trainers_priority_is_not_the_childrens(level: str) -> None:
    found = await run_as(
        None,
        f"""
        import asyncio, os
        from rewright.sandbox import Sandbox

        async def main():
            os.setpriority(os.PRIO_PROCESS, 0, -1)
            os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
            async with Sandbox({level!r}, wall_seconds=60.0, prefork=0) as box:
                os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
                source = "import os\\n(os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, 0))"
                print((await box.run(source)).content)

        asyncio.run(main())
        """,
    )
    assert found == "(0, 0)\n"


async def test_buffers_of_sockets_stay_as_they_are_with_the_network() -> None:
    source = (
        "import socket\n"
        "names = (socket.SO_SNDBUF, socket.SO_RCVBUF)\n"
        "def sizes(one): return [one.getsockopt(socket.SOL_SOCKET, name) for name in names]\n"
        "one = socket.socket()\nbefore = sizes(one)\n"
        "for name in names: one.setsockopt(socket.SOL_SOCKET, name, 1 << 20)\n"
        "one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)\n"
        "sizes(one) == before, one.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)"
    )
    async with Sandbox("strict", network=True, wall_seconds=SECONDS) as box:
        assert (await box.run(source)).content == "(True, 1)"
