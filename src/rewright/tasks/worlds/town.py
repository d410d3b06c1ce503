"""The town: an embedded world that is generated separately for every task and accessed only through tools.

Every task has its own people and tables (who manages whom, ages), so that answers can't be memorised and the tools must
be called. A task has a question in English, the required tools among distractors, gold calls, expected tool outputs and
the answer.

Task families
- `chain`: k sequential lookups, each on the previous result ("the age of the mentor of the manager of Kalo").
- `arithmetic`: two chains, then one calculation on the two values.
- `parallel`: the same attribute of several people, best looked up in one turn; the answer lists them in order.
- `recover`: a chain in which one tool returns an error that names its replacement.

With `Profile.cached`, some lookups are also available from a cache (`get_manager_cached`). Some cache entries are
outdated, which the cache does not indicate.

Splits share no entity: each name belongs to one of `train`, `heldout` and `long` by its hash. Not here: call formats
(dialects/), tool execution (tools/), demonstrations (demonstrations.py).
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import msgspec

from rewright.core.errors import InputError
from rewright.core.records import Gold, Task, ToolCall, ToolSpec
from rewright.tasks.formats import WorldFormat

__all__ = [
    "FORMAT",
    "PROFILES",
    "SPLITS",
    "SYSTEM_PROMPT",
    "Profile",
    "Step",
    "calculate",
    "generate",
    "look_up",
    "plan_of",
]

SYSTEM_PROMPT: Final = "Answer with the tools. Think before each call. Put the final answer in <answer></answer>."

SPLITS: Final = ("train", "heldout", "long")

PEOPLE_RELATIONS: Final = (
    "manager", "mentor", "neighbour", "doctor", "coach", "dentist", "landlord", "lawyer", "barber", "tailor",
)  # fmt: skip
NUMBERS: Final = ("age", "rent", "height", "weight", "debt", "salary", "score", "floor")
OPERATIONS: Final = ("add", "subtract", "multiply")
STYLES: Final = (("get", "person"), ("fetch", "name"), ("find", "who"), ("read", "of"))
"""Naming schemes for tools: the verb before the relation, and the name of the only parameter."""

PEOPLE_PER_TASK: Final = 10
CACHED: Final = "_cached"
"""Suffix of a cache tool's name."""

Step = tuple[ToolCall, ...]
"""Calls of one turn."""


class Profile(msgspec.Struct, frozen=True):
    """Distribution of the tasks. Weights need not sum to 1; `hops` is the number of sequential lookups of a chain."""

    families: dict[str, float]
    hops: dict[int, float]
    styles: tuple[int, ...] = (0, 1, 2, 3)
    relations: int = len(PEOPLE_RELATIONS)
    """Number of relations used, counted from the start of PEOPLE_RELATIONS."""
    distractors: tuple[int, int] = (2, 4)
    cached: float = 0.0
    """Fraction of lookups that also have a cache."""
    outdated: float = 0.5
    """Fraction of a cache's entries that are wrong."""


PROFILES: Final[dict[str, Profile]] = {
    # The training distribution of pico: mostly short tasks.
    "short": Profile(
        families={"chain": 0.5, "arithmetic": 0.2, "parallel": 0.15, "recover": 0.15},
        hops={1: 0.47, 2: 0.47, 3: 0.04, 4: 0.02},
        styles=(0, 1),
        relations=8,
    ),
    # The default for running the pipeline: longer horizons.
    "standard": Profile(
        families={"chain": 0.6, "arithmetic": 0.1, "parallel": 0.1, "recover": 0.2},
        hops={2: 0.15, 3: 0.3, 4: 0.35, 5: 0.2},
        styles=(0, 1),
        relations=8,
    ),
    "long": Profile(
        families={"chain": 0.7, "recover": 0.3},
        hops={5: 0.5, 6: 0.5},
        styles=(0, 1),
        relations=8,
    ),
    # Like `standard`, with caches that may be outdated. No pico model was trained on a wrong entry.
    "cached": Profile(
        families={"chain": 0.7, "arithmetic": 0.1, "recover": 0.2},
        hops={2: 0.5, 3: 0.5},
        styles=(0, 1),
        relations=8,
        distractors=(2, 3),
        cached=0.6,
    ),
    # All families, with tool naming schemes that no pico model was trained on.
    "all": Profile(
        families={"chain": 0.5, "arithmetic": 0.2, "parallel": 0.15, "recover": 0.15},
        hops={1: 0.15, 2: 0.2, 3: 0.2, 4: 0.2, 5: 0.15, 6: 0.1},
    ),
}


def split_of(name: str) -> str:
    """Return the split of a name by its hash: 60% train, 30% held out, 10% long horizon."""
    bucket = hashlib.sha256(name.encode()).digest()[0] % 10
    return "train" if bucket < 6 else "heldout" if bucket < 9 else "long"


def draw_name(rng: random.Random, split: str) -> str:
    """Return a random name that belongs to `split`."""
    while True:
        syllables = [rng.choice("bdfgklmnprstvz") + rng.choice("aeiou") for _ in range(rng.choice((2, 2, 3)))]
        name = ("".join(syllables) + rng.choice(("", "", "n", "r", "s"))).capitalize()
        if split_of(name) == split:
            return name


def look_up(data: dict[str, Any], **arguments: Any) -> str:
    """Implements the lookup tool of every relation and attribute: one table, one parameter.

    Raises LookupError for an unknown name, TypeError for wrong parameters, RuntimeError if the tool has moved.
    """
    parameter = data["parameter"]
    if set(arguments) != {parameter}:
        raise TypeError(f"expected exactly the parameter {parameter}")
    if data.get("moved"):
        raise RuntimeError(f"moved, use {data['moved']}")
    name = arguments[parameter]
    table: dict[str, Any] = data["table"]
    if not isinstance(name, str) or name not in table:
        raise LookupError(f"no entry for {name}")
    return str(table[name])


def calculate(data: dict[str, Any], **arguments: Any) -> str:
    """Implements `add`, `subtract` and `multiply`. Raises TypeError unless a and b are numbers."""
    if set(arguments) != {"a", "b"}:
        raise TypeError("expected exactly the parameters a and b")
    a, b = arguments["a"], arguments["b"]
    if any(isinstance(value, bool) or not isinstance(value, int | float) for value in (a, b)):
        raise TypeError("a and b must be numbers")
    operation = data["operation"]
    return str(a + b if operation == "add" else a - b if operation == "subtract" else a * b)


class _Town:
    """People, tables and tool names of one task."""

    def __init__(self, rng: random.Random, split: str, profile: Profile) -> None:
        self.rng = rng
        people: dict[str, None] = {}
        while len(people) < PEOPLE_PER_TASK:
            people[draw_name(rng, split)] = None
        self.people = list(people)
        self.verb, self.parameter = STYLES[rng.choice(profile.styles)]
        self.relations = PEOPLE_RELATIONS[: profile.relations]
        self.tables: dict[str, dict[str, Any]] = {}
        self.moved: dict[str, str] = {}
        self.cached, self.outdated = profile.cached, profile.outdated

    def table(self, field: str) -> dict[str, Any]:
        if field not in self.tables:
            if field in NUMBERS:
                self.tables[field] = {name: self.rng.randint(2, 99) for name in self.people}
            else:
                # A random cycle, so that no person is their own manager.
                order = self.rng.sample(self.people, len(self.people))
                self.tables[field] = dict(zip(order, [*order[1:], order[0]], strict=True))
        return self.tables[field]

    def tool(self, field: str) -> str:
        return f"{self.verb}_{field}"

    def call(self, field: str, name: str) -> ToolCall:
        return ToolCall(name=self.moved.get(field, self.tool(field)), arguments={self.parameter: name})

    def chain(self, hops: int, *, number: bool | None = None) -> tuple[str, list[str], str, list[Step]]:
        """Return the start person, the field of each hop, the final value, and one step per lookup."""
        rng = self.rng
        if number is None:
            number = rng.random() < 0.6
        fields = rng.sample(self.relations, min(hops, len(self.relations)))[: hops - number]
        if number:
            fields.append(rng.choice(NUMBERS))
        start = value = rng.choice(self.people)
        steps: list[Step] = []
        for field in fields:
            steps.append((self.call(field, value),))
            value = str(self.table(field)[value])
        return start, fields, value, steps

    def phrase(self, start: str, fields: Sequence[str]) -> str:
        """Return the chain in English: "Kalo's manager's age" or "the age of the manager of Kalo"."""
        if self.rng.random() < 0.5:
            return start + "'s " + "'s ".join(fields)
        return "the " + " of the ".join(reversed(fields)) + f" of {start}"

    def question(self, start: str, fields: Sequence[str]) -> str:
        """Return the chain phrased as a question or as a request."""
        phrase = self.phrase(start, fields)
        asks = "What is {}?" if fields[-1] in NUMBERS else "Who is {}?"
        return self.rng.choice((asks, "Tell me {}.", "Find {}.")).format(phrase)

    def move_one(self, fields: Sequence[str]) -> None:
        """Move one of the fields to another tool. Its original tool returns an error from then on."""
        field = self.rng.choice(list(fields))
        verb = self.rng.choice([verb for verb, _ in STYLES if verb != self.verb])
        self.moved[field] = f"{verb}_{field}"

    def specs(self, operation: str | None, distractors: int) -> tuple[ToolSpec, ...]:
        """Return the tools of the task, including distractors, in random order."""
        unused = [field for field in (*self.relations, *NUMBERS) if field not in self.tables]
        for field in self.rng.sample(unused, min(distractors, len(unused))):
            self.table(field)
        specs = [self._spec(field) for field in self.tables]
        specs += [self._spec(field, name) for field, name in self.moved.items()]
        if self.cached:
            specs += [self._cache(field) for field in self.tables if self.rng.random() < self.cached]
        if operation is not None:
            specs += [_calculator(name) for name in OPERATIONS]
        self.rng.shuffle(specs)
        return tuple(specs)

    def _spec(self, field: str, name: str | None = None) -> ToolSpec:
        moved = self.moved.get(field) if name is None else None
        schema = _schema(name or self.tool(field), f"The {field} of a person.", {self.parameter: "string"})
        data = {"parameter": self.parameter, "table": {} if moved else self.tables[field], "moved": moved}
        return ToolSpec(schema=schema, target="rewright.tasks.worlds.town:look_up", data=data)

    def _cache(self, field: str) -> ToolSpec:
        """Return the field's cache tool. It never moves, and some of its entries are another person's values."""
        table = {
            name: self.rng.choice([other for other in self.tables[field].values() if other != value])
            if self.rng.random() < self.outdated
            else value
            for name, value in self.tables[field].items()
        }
        schema = _schema(
            self.tool(field) + CACHED, f"The {field} of a person, from a cache.", {self.parameter: "string"}
        )
        return ToolSpec(
            schema=schema,
            target="rewright.tasks.worlds.town:look_up",
            data={"parameter": self.parameter, "table": table, "moved": None},
        )


def _schema(name: str, description: str, parameters: dict[str, str]) -> dict[str, Any]:
    return {
        "type": "function",
        "function": {
            "name": name,
            "description": description,
            "parameters": {
                "type": "object",
                "properties": {key: {"type": kind} for key, kind in parameters.items()},
                "required": list(parameters),
            },
        },
    }


def _calculator(name: str) -> ToolSpec:
    schema = _schema(name, f"{name.capitalize()} two numbers.", {"a": "number", "b": "number"})
    return ToolSpec(schema=schema, target="rewright.tasks.worlds.town:calculate", data={"operation": name})


Built = tuple[str, str, list[Step], str | None, int]
"""(question, answer, steps, calculator operation or None, number of hops)."""


def _chain(town: _Town, hops: int) -> Built:
    start, fields, value, steps = town.chain(hops)
    return town.question(start, fields), value, steps, None, hops


def _recover(town: _Town, hops: int) -> Built:
    start, fields, _, _ = town.chain(hops)
    town.move_one(fields)
    value = start
    steps: list[Step] = []
    for field in fields:
        steps.append((town.call(field, value),))
        value = str(town.table(field)[value])
    return town.question(start, fields), value, steps, None, hops


def _arithmetic(town: _Town, hops: int) -> Built:
    # The hops are divided between two chains and the final calculation.
    first = town.chain(max(1, min(2, hops - 1)), number=True)
    second = town.chain(1, number=True)
    operation = town.rng.choice(OPERATIONS)
    wording = {"add": "Add {0} and {1}.", "subtract": "Take {1} from {0}.", "multiply": "Multiply {0} by {1}."}
    a, b = int(first[2]), int(second[2])
    value = a + b if operation == "add" else a - b if operation == "subtract" else a * b
    question = wording[operation].format(town.phrase(first[0], first[1]), town.phrase(second[0], second[1]))
    final: Step = (ToolCall(name=operation, arguments={"a": a, "b": b}),)
    return question, str(value), [*first[3], *second[3], final], operation, hops


def _parallel(town: _Town, hops: int) -> Built:
    count = min(4, max(2, hops))
    field = town.rng.choice((*NUMBERS, *town.relations))
    people = town.rng.sample(town.people, count)
    step = tuple(town.call(field, name) for name in people)
    answer = ", ".join(str(town.table(field)[name]) for name in people)
    names = ", ".join(people[:-1]) + " and " + people[-1]
    return f"List the {field} of {names}.", answer, [step], None, 1


BUILDERS: Final[dict[str, Callable[[_Town, int], Built]]] = {
    "chain": _chain,
    "arithmetic": _arithmetic,
    "parallel": _parallel,
    "recover": _recover,
}


def generate(split: str, count: int, *, seed: int = 0, profile: str | Profile | None = None) -> Iterator[Task]:
    """Generate `count` tasks of a split. Each task has its own seed, so that task i does not depend on `count`.

    `profile` defaults to `long` for the split `long`, else to `standard`. Raises InputError for an unknown split or
    profile.
    """
    if split not in SPLITS:
        raise InputError(f"unknown world split {split!r}: expected one of {', '.join(SPLITS)}")
    name = profile if isinstance(profile, str) else None
    if profile is None:
        name = "long" if split == "long" else "standard"
    if name is not None and name not in PROFILES:
        raise InputError(f"unknown world profile {name!r}: expected one of {', '.join(PROFILES)}")
    chosen = profile if isinstance(profile, Profile) else PROFILES[name or "standard"]
    for index in range(count):
        yield _task(f"town-{split}-{name or 'custom'}-{seed}-{index}", split, chosen)


def _task(task_id: str, split: str, profile: Profile) -> Task:
    rng = random.Random(task_id)  # string seeds are hashed with SHA-512, so they are the same on every machine
    family = rng.choices(list(profile.families), list(profile.families.values()))[0]
    hops = rng.choices(list(profile.hops), list(profile.hops.values()))[0]
    town = _Town(rng, split, profile)
    question, answer, steps, operation, hops = BUILDERS[family](town, hops)
    calls = tuple(call for step in steps for call in step)
    tools = town.specs(operation, rng.randint(*profile.distractors))
    outputs: dict[str, list[str]] = {}
    for call in calls:
        spec = next(spec for spec in tools if spec.name == call.name)
        run = calculate if spec.target == "rewright.tasks.worlds.town:calculate" else look_up
        outputs.setdefault(call.name, []).append(run(spec.data, **call.arguments))
    return Task(
        id=task_id,
        messages=({"role": "system", "content": SYSTEM_PROMPT}, {"role": "user", "content": question}),
        tools=tools,
        gold=Gold(answers=(answer,), calls=calls, outputs=outputs),
        source="town",
        split=split,
        judge="exact",
        metadata={"family": family, "hops": hops, "steps": [len(step) for step in steps]},
    )


def plan_of(task: Task) -> list[Step]:
    """Return the gold calls of a generated task, grouped by turn."""
    calls = list(task.gold.calls or ())
    steps: list[Step] = []
    for size in task.metadata["steps"]:
        steps.append(tuple(calls[:size]))
        calls = calls[size:]
    return steps


FORMAT = WorldFormat(generate)
