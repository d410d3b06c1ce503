"""Recipes: a YAML file plus dotted overrides, checked into one frozen settings object.

Every mistake is an `InputError` in one line with file, line and key, and names the nearest valid key. Nothing here runs
anything. The defaults are sized for two cores; bigger is for whoever has it.
"""

from __future__ import annotations

import difflib
import hashlib
import math
import re
import types
import typing
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import msgspec
import yaml

from rewright.errors import InputError
from rewright.plugins.settings import TurnCredit
from rewright.quality import QualitySettings
from rewright.recipe_checks import settle
from rewright.rollout import Limits

__all__ = [
    "BuildSettings",
    "EvalSettings",
    "ModelSettings",
    "PriceSettings",
    "RLSettings",
    "Recipe",
    "RepairSettings",
    "RewardSettings",
    "SFTSettings",
    "SandboxSettings",
    "SynthSettings",
    "TaskSettings",
    "ToolSettings",
    "load_recipe",
    "recipe_hash",
]

Stage = Literal["eval_base", "synth", "judge", "score", "repair", "build", "sft", "eval_sft", "reward", "rl", "eval_rl"]
ALL_STAGES: tuple[Stage, ...] = get_args(Stage)


AT_LEAST: dict[str, int] = {
    **dict.fromkeys(("slots", "max_length", "concurrency", "attempts", "n", "count", "limit", "memory_mb"), 1),
    **dict.fromkeys(
        ("batch_size", "micro_batch_size", "lora_rank", "save_steps", "tasks_per_step", "updates_per_step"), 1
    ),
    **dict.fromkeys(("output_characters", "passages"), 1),
    "generations": 2,  # a group of one has no advantage
}
POSITIVE = ("stage_seconds", "timeout_seconds", "max_wait_seconds", "wall_seconds", "top_p")
SIGNED = ("entropy",)
AT_MOST_ONE = ("top_p", "gamma", "held_out_fraction")
"""Which numbers are allowed, by the name of the key; all others are 0 or more."""


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of the sections: unknown keys are errors, numbers are checked."""

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if not isinstance(value, int | float) or isinstance(value, bool):
                continue
            if not math.isfinite(value):
                raise ValueError(f"{name} must be a finite number, got {value}")
            if value < AT_LEAST.get(name, 0) and name not in SIGNED:
                least = f"be at least {AT_LEAST[name]}" if name in AT_LEAST else "not be negative"
                raise ValueError(f"{name} must {least}, got {value}")
            if value == 0 and name in POSITIVE:
                raise ValueError(f"{name} must be positive, got {value}")
            if value > 1 and name in AT_MOST_ONE:
                raise ValueError(f"{name} must be at most 1, got {value}")


class ModelSettings(_Section, frozen=True):
    """A model: `pico` (and its kin), `smollm2`, a local folder, a Hugging Face id, or a served model's name."""

    path: str = "pico"
    engine: Literal["hf", "openai"] = "hf"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    slots: int = 48
    """hf: how many trajectories decode together."""
    max_length: int | None = None
    """hf: context length; default: the model's own."""
    base_url: str | None = None
    mode: Literal["auto", "chat", "completions"] = "auto"
    api_key_env: str = "OPENAI_API_KEY"
    concurrency: int = 32
    timeout_seconds: float = 300.0
    attempts: int = 5
    """openai: tries per request."""
    max_wait_seconds: float = 60.0
    """openai: the longest wait between two tries."""
    check_model: bool = True
    """openai: an answer from a model of another name is a fault."""
    log_probs: Literal["raw", "processed", "off"] = "raw"
    """openai: which log-probabilities the server gives (vLLM: `--logprobs-mode`)."""
    tokenizer: str | None = None
    """openai, completions: the tokenizer's folder or id, where it is not the served model's name."""
    extra_body: dict[str, Any] | None = None
    template_options: dict[str, Any] = {}
    trust_remote_code: bool = False


class PriceSettings(_Section, frozen=True):
    """What a million tokens of a model cost, in any one currency."""

    input: float
    output: float


class TaskSettings(_Section, frozen=True):
    """Where tasks come from: an embedded world (`town`, `almanac`) or a file in a known format."""

    format: str = "town"
    path: str | None = None
    split: str = "train"
    profile: str | None = None
    count: int = 300
    """town, almanac: how many tasks to draw."""
    seed: int = 0
    """town, almanac, reasoning_gym: seed of the draw."""
    limit: int | None = None


class SandboxSettings(_Section, frozen=True):
    """How tools that are source text are executed."""

    level: Literal["strict", "process", "unsafe"] = "strict"
    wall_seconds: float | None = None
    """Bound of every execution; default: `limits.tool_seconds`."""
    memory_mb: int = 512
    network: bool = False
    """The host's network, every host of it, for what runs in the sandbox."""
    url: str | None = None
    """A sandbox elsewhere that speaks SandboxFusion's protocol: sources and programs run there, with its isolation."""
    trusted: tuple[str, ...] = ()
    """Packages of your own: their importable tools (`target`) run as your code, outside of the sandbox."""


class ToolSettings(_Section, frozen=True):
    """Tools that every task gets, beside its own."""

    python: bool = False
    """The Python tool (AutoTraj section 2)."""
    python_state: Literal["call", "trajectory"] = "call"
    """How long a program's names live."""
    output_characters: int = 400
    """Of the Python tool's output, the rest is cut out of the middle."""
    search: str | None = None
    """The search tool: the folder of an index, the address of a search server, or `almanac` (the embedded corpus)."""
    passages: int = 1
    """How many passages a search shows."""


class SynthSettings(_Section, frozen=True):
    """Candidates (AutoTraj section 3.1: 2 per task at temperature 0.3, top-p 0.9)."""

    n: int = 2
    temperature: float = 0.3
    top_p: float = 0.9
    limit: int | None = None
    concurrency: int = 96


class RepairSettings(_Section, frozen=True):
    """LLM-as-Repairer (AutoTraj section 3.3). Thresholds are the authors'."""

    model: ModelSettings | None = None
    attempts: int = 1
    temperature: float = 0.0
    top_p: float = 1.0
    calls: int = 3
    """How many calls the repairer is told it may make."""
    show_gold: bool = False
    modes: tuple[Literal["wrong_answer", "low_quality"], ...] = ("wrong_answer", "low_quality")
    low_quality_threshold: float = 0.86
    wrong_answer_threshold: float = 0.8
    concurrency: int = 96


class BuildSettings(_Section, frozen=True):
    """SFT and preference sets."""

    held_out_fraction: float = 0.05
    pairs: Literal["repaired", "repaired+kept"] = "repaired"
    """`repaired`: (repaired, original). `+kept`: also (kept, wrong) of the same task."""


class _TrainSettings(_Section, frozen=True):
    learning_rate: float = 7e-6
    micro_batch_size: int | None = None
    """Trajectories per forward pass; default: the whole batch."""
    lora_rank: int | None = None
    report_to: tuple[str, ...] = ()
    save_steps: int | None = None
    arguments: dict[str, Any] = {}
    """Further arguments of the TRL config, by name."""


class SFTSettings(_TrainSettings, frozen=True):
    """Supervised fine-tuning. Defaults are AutoTraj's (section 4.1)."""

    batch_size: int = 16
    """Trajectories per optimizer step."""
    max_length: int | None = None
    epochs: float = 3.0
    warmup: float = 0.1
    scheduler: str = "cosine"
    source: Literal["run", "demonstrations"] = "run"
    """`demonstrations`: the world's worked examples instead of this run's kept and repaired trajectories."""
    demonstrations: int = 1000
    profile: str = "short"


class RewardSettings(_TrainSettings, frozen=True):
    """The trajectory reward model, Bradley-Terry. Defaults are AutoTraj's (section 4.1)."""

    learning_rate: float = 1e-5
    batch_size: int = 32
    """Pairs per optimizer step."""
    max_length: int | None = None
    epochs: float = 2.0
    minimum_accuracy: float = 0.5
    """RL does not start below this held-out pair accuracy."""
    minimum_pairs: int = 20
    """With fewer held-out pairs nobody knows the accuracy: RL then runs without the reward model."""
    url: str | None = None
    """A reward model that `rewright serve-reward` serves: RL uses it, and none is trained."""
    timeout_seconds: float = 120.0
    """url: one attempt at one request."""
    attempts: int = 5
    """url: tries per request."""


class RLSettings(_TrainSettings, frozen=True):
    """GRPO on TRL with turn-level advantages."""

    learning_rate: float = 1e-6
    steps: int = 40
    tasks_per_step: int = 8
    generations: int = 8
    updates_per_step: int = 1
    """Into how many optimizer steps the rollouts of one step are divided (AutoTraj: 2)."""
    temperature: float = 1.0
    top_p: float = 1.0
    epsilon: float = 0.2
    beta: float = 0.0
    entropy: float = 0.0
    """Bonus on the entropy of the model's tokens; below 0 a price on it."""
    loss_type: str = "grpo"
    scheduler: str = "constant"
    warmup: float = 0.0
    reward_model_weight: float = 0.2
    reward_model_clip: float = 3.0
    credit: TurnCredit = TurnCredit(lonely_turn="zero")
    call_weight: float = 1.0
    """What the calls' part of the turn rewards is multiplied with before the outcome is added."""
    tasks: TaskSettings | None = None
    keep_rollouts: bool = True
    concurrency: int = 128


class EvalSettings(_Section, frozen=True):
    """Held-out evaluation."""

    tasks: TaskSettings = TaskSettings(split="heldout", count=400, seed=1)
    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    concurrency: int = 128


class Recipe(_Section, frozen=True):
    """A whole run. `tasks=FILE` on the command line is short for `tasks.path=FILE`."""

    name: str = "run"
    seed: int = 0
    stages: tuple[Stage, ...] = ALL_STAGES
    stage_seconds: float | None = None
    """No stage takes longer: it is stopped as by Ctrl-C, and --resume goes on with it, with as much time again."""
    prices: dict[str, PriceSettings] = {}
    """By the model's name (`model.path`)."""
    dialect: str = "hermes"
    model: ModelSettings = ModelSettings()
    tasks: TaskSettings = TaskSettings()
    limits: Limits = Limits()
    sandbox: SandboxSettings = SandboxSettings()
    tools: ToolSettings = ToolSettings()
    quality: QualitySettings = QualitySettings()
    synth: SynthSettings = SynthSettings()
    repair: RepairSettings = RepairSettings()
    build: BuildSettings = BuildSettings()
    sft: SFTSettings = SFTSettings()
    reward: RewardSettings = RewardSettings()
    rl: RLSettings = RLSettings()
    eval: EvalSettings = EvalSettings()


SHORT_FORMS = {"tasks": "path", "model": "path", "sandbox": "level"}
"""Sections that may be given as one string, and the key that the string then is."""


def load_recipe(path: Path | None, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe file (None: all defaults) and apply `section.key=value` overrides. Raises InputError."""
    data: Any = {}
    places: dict[str, str] = {}
    where = str(path) if path is not None else "recipe"
    if path is not None:
        data, places = _read_yaml(path)
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator or not key:
            raise InputError(f"override {override!r}: expected section.key=value")
        try:
            value = yaml.load(text, _Loader)
        except (yaml.YAMLError, ValueError, RecursionError):
            value = text
        _set(data, key.split("."), value, override)
        places[key] = f"override {override!r}"
        while "." in key:
            key = key.rpartition(".")[0]
            places.setdefault(key, f"override {override!r}")
    settle(data, places, _standard(), where)
    data = _expand(data, Recipe, Recipe())
    _check_keys(data, Recipe, "", where, places)
    try:
        return msgspec.convert(data, Recipe, strict=True)
    except msgspec.ValidationError as problem:
        raise InputError(_located(str(problem), where, places)) from None
    except UnicodeEncodeError:
        raise InputError(f"{where}: not a recipe: a text holds bytes that are not UTF-8") from None


def recipe_hash(recipe: Recipe, sections: Iterable[str]) -> str:
    """Eight hexadecimal digits of the named sections: part of every id that depends on them."""
    parts = {name: getattr(recipe, name) for name in sections}
    return hashlib.blake2b(msgspec.json.encode(parts, order="sorted"), digest_size=4).hexdigest()


class _Loader(yaml.SafeLoader):
    """YAML as people expect it (1.2): `1e-5` is a number, `off` is a word."""


_Loader.yaml_implicit_resolvers = {
    letter: [entry for entry in entries if entry[0] not in ("tag:yaml.org,2002:bool", "tag:yaml.org,2002:float")]
    for letter, entries in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^(?:true|True|TRUE|false|False|FALSE)$"), "tTfF")
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:(?:\d+\.\d*|\.\d+)(?:[eE][-+]?\d+)?|\d+[eE][-+]?\d+|\.(?:inf|Inf|INF))$|^\.(?:nan|NaN|NAN)$"),
    "-+0123456789.",
)


def _read_yaml(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a UTF-8 text file: expected a recipe in YAML") from None
    except OSError as problem:
        raise InputError(f"cannot read recipe {path}: {problem.strerror or problem}") from None
    try:
        data = yaml.load(text, _Loader)
        node = yaml.compose(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError) as problem:
        mark = getattr(problem, "problem_mark", None)
        line = f":{mark.line + 1}" if mark is not None else ""
        reason = getattr(problem, "problem", None) or getattr(problem, "reason", None) or problem
        raise InputError(f"{path}{line}: not valid YAML: {_one_line(reason)}") from None
    except RecursionError:
        raise InputError(f"{path}: not a recipe: nested too deeply") from None
    if data is None:
        data = {}
    if not isinstance(data, dict):
        raise InputError(f"{path}: expected a mapping of sections, got {type(data).__name__}")
    places: dict[str, str] = {}
    _collect_places(node, "", str(path), places)
    return data, places


def _collect_places(node: Any, prefix: str, path: str, places: dict[str, str], depth: int = 0) -> None:
    """Where every key stands: dotted name -> "file:line". Raises InputError for a key that is given twice."""
    if depth > 20:
        raise InputError(f"{path}: not a recipe: nested too deeply")
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            name = f"{prefix}.{key.value}" if prefix else str(key.value)
            place = f"{path}:{key.start_mark.line + 1}"
            if name in places:
                first = places[name].rpartition(":")[2]
                raise InputError(f"{place}: {_one_line(name)} is given twice: it stands in line {first} already")
            places[name] = place
            _collect_places(value, name, path, places, depth + 1)
    elif isinstance(node, yaml.SequenceNode):
        for number, item in enumerate(node.value):
            _collect_places(item, f"{prefix}[{number}]", path, places, depth + 1)


def _one_line(text: object) -> str:
    return " ".join(str(text).split())


def _set(data: dict[str, Any], keys: list[str], value: Any, override: str) -> None:
    for depth, key in enumerate(keys[:-1]):
        below = data.setdefault(key, {})
        if isinstance(below, str) and key in SHORT_FORMS:
            below = data[key] = {SHORT_FORMS[key]: below}
        if below is None:
            below = data[key] = {}
        if not isinstance(below, dict):
            raise InputError(f"override {override!r}: {'.'.join(keys[: depth + 1])} is not a section")
        data = below
    last = keys[-1]
    if last in SHORT_FORMS and isinstance(value, str) and isinstance(data.get(last), dict):
        data[last][SHORT_FORMS[last]] = value
    else:
        data[last] = value


def _expand(data: Any, kind: Any, standard: Any) -> Any:
    """`data` with its short forms written out. What a section leaves out is as in `standard`, its default.

    (`eval.tasks` has other defaults than `tasks`: giving one of its keys must not change the others.)
    """
    struct = _struct_of(kind)
    if struct is None or not isinstance(data, dict):
        return data
    fields = typing.get_type_hints(struct)
    expanded: dict[str, Any] = {}
    for key, value in data.items():
        below = fields.get(key)
        section = _struct_of(below)
        default = getattr(standard, key, None) if isinstance(key, str) else None
        if section is None:
            expanded[key] = value
            continue
        if value is None and isinstance(below, type):
            given: Any = {}  # a section whose keys are all commented out
        elif isinstance(value, str) and key in SHORT_FORMS:
            given = {SHORT_FORMS[key]: value}
        else:
            given = _expand(value, below, default)
        expanded[key] = _own_defaults(default) | given if isinstance(given, dict) else given
    return expanded


def _standard() -> dict[str, Any]:
    """The defaults of every section, those included that are None unless given."""
    standard: dict[str, Any] = msgspec.to_builtins(Recipe())
    standard["rl"]["tasks"] = msgspec.to_builtins(TaskSettings())
    return standard


def _own_defaults(standard: Any) -> dict[str, Any]:
    """The fields in which a section's default differs from the default of its type."""
    if not isinstance(standard, msgspec.Struct):
        return {}
    usual = type(standard)()
    names = [name for name in standard.__struct_fields__ if getattr(standard, name) != getattr(usual, name)]
    return {name: msgspec.to_builtins(getattr(standard, name)) for name in names}


def _struct_of(kind: Any) -> type[msgspec.Struct] | None:
    """The section type in `X` or `X | None`."""
    if get_origin(kind) in (typing.Union, types.UnionType):
        found = [struct for part in get_args(kind) if (struct := _struct_of(part)) is not None]
        return found[0] if found else None
    return kind if isinstance(kind, type) and issubclass(kind, msgspec.Struct) else None


def _check_keys(data: Any, kind: Any, prefix: str, where: str, places: dict[str, str]) -> None:
    struct = _struct_of(kind)
    if struct is None or not isinstance(data, dict):
        return
    fields = typing.get_type_hints(struct)
    for key, value in data.items():
        name = f"{prefix}.{key}" if prefix else str(key)
        if key not in fields:
            near = difflib.get_close_matches(str(key), fields, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(sorted(fields))}"
            raise InputError(f"{places.get(name, where)}: unknown key {_one_line(name)}: {hint}")
        _check_keys(value, fields[key], name, where, places)


def _choices(name: str) -> str:
    """The words that the key `name` may be, or an empty string."""
    kind: Any = Recipe
    for key in re.sub(r"\[[^\]]*\]", "", name).split("."):
        struct = _struct_of(kind)
        kind = None if struct is None else typing.get_type_hints(struct).get(key)
    words = [str(word) for word in get_args(kind)] if get_origin(kind) is Literal else []
    if get_origin(kind) is tuple:
        words = [str(word) for word in get_args(get_args(kind)[0])]
    return f": expected one of {', '.join(words)}" if words else ""


def _located(problem: str, where: str, places: dict[str, str]) -> str:
    """A msgspec message ("Expected `int`, got `str` - at `$.synth.n`") with file, line and key in front."""
    reason, _, path = problem.partition(" - at `$")
    name = path.rstrip("`").lstrip(".")
    # The check of a whole section names its key in the message, not in the path.
    if " must " in reason:
        key, _, reason = reason.partition(" ")
        name = f"{name}.{key}".lstrip(".")
    plain = re.sub(r"\[[^\]]*\]", "", name)
    choices = _choices(name) if "enum" in reason else ""
    reason = f"{reason[:1].lower()}{reason[1:]}".replace("`object`", "a section").replace("`array`", "a list")
    return _one_line(f"{places.get(plain, where)}: {name or 'recipe'}: {reason}{choices}")
