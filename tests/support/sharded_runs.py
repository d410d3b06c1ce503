"""A run of Rewright as one file and as shards."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

from rewright.core.records import Gold, Task, ToolCall, Trajectory, Turn
from rewright.core.shards import write_shard
from rewright.core.storage import encode_line
from rewright.tasks.loading import save_tasks


def write_whole(folder: Path, *, tasks: int = 40) -> list[bytes]:
    """A run of three candidates for each task, and one repair, in trajectories.jsonl. Returns its lines."""
    draw = random.Random(0)
    made, lines = [], []
    for number in range(tasks):
        call = ToolCall(f"look{number % 3}", {"place": f"p{number}", "unit": "km"}, raw="")
        prompt = ({"role": "user", "content": f"question {number} – ¿qué?"},)
        made.append(Task(id=f"t{number}", messages=prompt, gold=Gold(answers=(str(number % 5),), calls=(call,) * 2)))
        for index in range(3):
            chosen = ToolCall(call.name, {"place": f"p{number}", "unit": draw.choice(["km", "mile"])}, raw="{}")
            words = " ".join(draw.choice(["so", "maybe", "then", "next"]) for _ in range(60))
            answer = str(draw.randrange(5)) if index else None
            turns = (
                Turn(text=f"<think>{words}</think>", calls=(chosen,) * draw.randrange(3)),
                Turn(text=f"<answer>{answer}</answer>" if answer else "I do not know."),
            )
            lines.append(
                encode_line(
                    Trajectory(
                        id=f"synth/t{number}/{index}", task_id=f"t{number}", stage="synth", index=index, turns=turns,
                        stop_reason="answered" if answer else "no_answer", answer=answer,
                    )
                )
            )  # fmt: skip
    folder.mkdir(parents=True)
    save_tasks(folder / "given.jsonl", made)
    recipe = f"tasks: {{format: rewright, path: {folder / 'given.jsonl'}}}\nstages: [judge, score]\n"
    (folder / "recipe.yaml").write_text(recipe)
    (folder / "trajectories.jsonl").write_bytes(b"".join(lines))
    return lines


def write_shards(folder: Path, whole: Path, *, count: int = 4, suffix: str = ".jsonl") -> Path:
    """The same run, its trajectories in shards."""
    folder.mkdir(parents=True)
    shutil.copyfile(whole / "recipe.yaml", folder / "recipe.yaml")
    lines = (whole / "trajectories.jsonl").read_bytes().splitlines(keepends=True)
    size = 3 * -(-len(lines) // (3 * count))
    (folder / "trajectories").mkdir()
    for number in range(count):
        name = f"part-{number:03}{suffix}"
        write_shard(folder / "trajectories" / name, lines[number * size : (number + 1) * size])
    return folder


def results(folder: Path) -> dict[str, bytes]:
    """The files of results of a sharded run, by their paths in it."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for name in ("verdicts", "quality", "credit")
        for path in sorted((folder / name).glob("*"))
        if path.name[0] != "_"
    }


def rows(lines: bytes) -> list[dict[str, object]]:
    """Decoded lines of JSON."""
    return [json.loads(line) for line in lines.splitlines()]
