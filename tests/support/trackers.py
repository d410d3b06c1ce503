"""What TensorBoard and wandb have of a run, read from their own files: scripts for the peers' environment."""

from __future__ import annotations

__all__ = ["EVENTS", "WANDB"]

EVENTS = """
import json, sys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from pathlib import Path
found = {}
for folder in Path(sys.argv[1]).iterdir():
    events = EventAccumulator(str(folder)).Reload()
    found[folder.name] = {tag: [[e.step, e.value] for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
print(json.dumps(found))
"""

# wandb reads these files in Go. The frame is LevelDB's log (blocks of 32 KiB), the records are wandb's own messages.
WANDB = """
import json, struct, sys
from pathlib import Path
from wandb.proto import wandb_internal_pb2

def records(data):
    assert data[:4] == b":W&B"
    position, whole = 7, b""
    while position + 7 <= len(data):
        left = 32768 - position % 32768
        if left < 7:
            position += left
            continue
        size, kind = struct.unpack_from("<HB", data, position + 4)
        whole += data[position + 7 : position + 7 + size]
        position += 7 + size
        if kind in (1, 4):  # complete, or the last part
            yield wandb_internal_pb2.Record.FromString(whole)
            whole = b""

found = []
for path in Path(sys.argv[1]).glob("offline-run-*/*.wandb"):
    about, history = {}, []
    for record in records(path.read_bytes()):
        if record.HasField("run"):
            run = record.run
            about |= {"id": run.run_id, "name": run.display_name, "project": run.project, "group": run.run_group,
                      "job_type": run.job_type, "start": run.start_time.ToMicroseconds()}
        if record.HasField("history"):
            items = record.history.item
            history.append({item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items})
        if record.HasField("exit"):
            about["exit"] = record.exit.exit_code
    found.append({**about, "history": history})
# Folders are named by the second, and two short stages fit into one.
print(json.dumps(sorted(found, key=lambda run: run["start"])))
"""
