"""Coverage-guided fuzzing of everything that reads what nobody vouches for.

    make fuzz                          each target for a minute
    python fuzz/parsers.py logs 600    one target for so many seconds

A finding is printed with its bytes; it becomes a test in `tests/test_hostile_input.py` and is repaired.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SEEDS = [
    b'<think>a</think><tool_call>\n{"name": "f", "arguments": {"a": [1, "b"]}}\n</tool_call>',
    b"<think>maybe</think><search>x</search><result>y</result><answer>\\boxed{1,000.5}</answer>",
    b'{"id": "a", "messages": [{"role": "user", "content": "x"}], "gold": {"answers": ["1"], "calls": []}}\n',
    b'{"task_id": "q", "messages": [{"role": "assistant", "content": "", "tool_calls": [{"function": '
    b'{"name": "f", "arguments": "{}"}}]}], "gold_calls": [{"name": "f", "arguments": {}}], "reward": 1}\n',
    b'{"prompt": [], "completion": [{"role": "assistant", "content": "x"}], "step": 1, "gold_calls": "[]", "r": 0.5}\n',
    b'{"version":1,"id":"x","task_id":"a","stage":"synth","index":0,"turns":[],"stop_reason":"no_answer"}\n',
    b'{"choices": [{"finish_reason": "stop", "message": {"content": "x", "tool_calls": []}, "logprobs": '
    b'{"content": [{"token": "x", "logprob": -0.5}]}}], "usage": {"prompt_tokens": 3}}',
    b"name: x\nmodel: {path: pico, slots: 8}\nrl:\n  credit: {gamma: 0.9}\nstages: [synth, judge]\n",
]


def fuzz(name: str, seconds: int) -> None:
    """Fuzz one target in this process, which then ends."""
    import atheris

    sys.path.insert(0, str(ROOT / "tests"))
    with atheris.instrument_imports(include=["rewright", "support"]):
        from support.targets import FILES, TEXTS, VALUES

    def one(data: bytes) -> None:
        if name in FILES:
            FILES[name](data)
        elif name in TEXTS:
            TEXTS[name](data.decode("utf-8", "surrogateescape"))
        else:
            with suppress(ValueError, RecursionError):
                VALUES[name](json.loads(data))

    with tempfile.TemporaryDirectory() as folder:
        for number, seed in enumerate(SEEDS):
            (Path(folder) / str(number)).write_bytes(seed)
        limits = [f"-max_total_time={seconds}", "-timeout=20", "-rss_limit_mb=4096", "-max_len=4096", "-verbosity=0"]
        atheris.Setup([sys.argv[0], *limits, "-print_final_stats=1", folder], one)
        atheris.Fuzz()


def main() -> None:
    """`parsers.py [TARGET [SECONDS]]`: without a target all of them, one after another."""
    if len(sys.argv) > 1:
        fuzz(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 60)
        return
    sys.path.insert(0, str(ROOT / "tests"))
    from support.targets import FILES, TEXTS, VALUES

    failed = []
    for name in (*TEXTS, *VALUES, *FILES):
        print(f"== {name}", flush=True)
        if subprocess.run([sys.executable, __file__, name], cwd=tempfile.gettempdir(), check=False).returncode:
            failed.append(name)
    sys.exit(f"found something in: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()
