"""The reward model of a base policy: AutoTraj's first stage on the base's own tasks, without its SFT.

Candidates of the base, judged, repaired by pico-repairer, pairs of repaired and original, Bradley-Terry on the base's
weights. Made once per base and kept: every seed of the method `rewright` uses the same.
"""

from __future__ import annotations

import fcntl
import json
from pathlib import Path

import msgspec

from learning_curves.runs import LIMITS, Base, profile_of
from rewright.core.progress import say
from rewright.engines.embedded import HFSettings
from rewright.engines.loading import tune_process
from rewright.pipeline.run_directory import Run
from rewright.pipeline.runner import Pipeline
from rewright.recipe.schema import Recipe
from rewright.repair.settings import RepairSettings
from rewright.rollout.settings import SynthSettings
from rewright.sandbox.settings import SandboxSettings
from rewright.tasks.loading import save_tasks
from rewright.tasks.settings import TaskSettings
from rewright.tasks.worlds.town import generate
from rewright.training.settings import BuildSettings, RewardSettings

__all__ = ["reward_model_of"]

TASKS = 300


def reward_model_of(base: Base, folder: Path, *, prefixes: bool = False) -> Path:
    """The folder of the base's reward model, trained in the run directory `folder` unless it is there already.

    `prefixes`: trained on turn prefixes, too, for the signal `model`.
    """
    tune_process()
    tasks_file = folder.with_suffix(".tasks.jsonl")
    tasks = list(generate("train", TASKS, seed=77, profile=profile_of(base)))
    folder.parent.mkdir(parents=True, exist_ok=True)
    save_tasks(tasks_file, tasks)
    recipe = Recipe(
        name=folder.name,
        stages=("synth", "judge", "score", "repair", "build", "reward"),
        model=HFSettings(path=base.model, slots=64),
        tasks=TaskSettings(format="rewright", path=str(tasks_file)),
        limits=msgspec.structs.replace(LIMITS, trajectory_tokens=640),
        sandbox=SandboxSettings(level="process"),
        synth=SynthSettings(temperature=1.0, top_p=1.0),
        repair=RepairSettings(model=HFSettings(path="pico-repairer", slots=64), temperature=0.7, calls=8),
        build=BuildSettings(held_out_fraction=0.15),
        reward=RewardSettings(
            learning_rate=3e-4, batch_size=16, epochs=1.0, scheduler="linear", warmup=0.0, prefixes=prefixes
        ),
    )
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another job may be making it: wait for that
        run = Run.create(folder, recipe, resume=(folder / "recipe.yaml").exists())
        with run.locked():
            Pipeline(run).run_all()
    accuracies = run.state().get("reward", {}).get("accuracies", {})
    say(f"reward model of base {base.name}: {json.dumps(accuracies)}")
    return run.model_folder("reward")
