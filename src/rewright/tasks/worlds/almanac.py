r"""The almanac: tasks for the `tags` dialect that need a Python program, a search, or both.

The corpus is generated. It has fictional people and one short passage per fact in the form `TITLE\nSENTENCE`, like
Wikipedia passages in retrieval corpora. Questions are multi-hop: the query of each hop depends on the result of the
previous one. `tools.search: almanac` in a recipe uses a search index of the corpus, built in memory on first use.

Task families
- `sum`: multi-step arithmetic on large numbers, best solved with one program.
- `fact`: multi-hop questions about people in the corpus ("the age of the mentor of the manager of Kalo").
- `both`: two facts to look up, then one calculation on them.

The splits are disjoint: each name and each sum belongs to either `train` or `heldout` by its hash. Not here: call
formats (dialects/), tool execution (tools/), demonstrations (almanac_demonstrations.py).
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, Final

import msgspec

from rewright.core.errors import InputError
from rewright.core.records import Gold, Task, ToolCall
from rewright.tasks.formats import WorldFormat
from rewright.tasks.worlds.town import NUMBERS, PEOPLE_RELATIONS, draw_name, split_of
from rewright.tools.python import PythonTool
from rewright.tools.search import SearchTool
from rewright.tools.search_index import Document, SearchIndex

__all__ = ["FORMAT", "PROFILES", "SPLITS", "SYSTEM_PROMPT", "Almanac", "Profile", "almanac_index", "generate"]

SPLITS: Final = ("train", "heldout")
PEOPLE: Final = {"train": 180, "heldout": 120}
"""Number of people per split."""
RELATIONS: Final = PEOPLE_RELATIONS[:8]
SIGNS: Final = {"add": "+", "subtract": "-", "multiply": "*"}

# The prompt describes the call format itself, kept short for the pico models, so the dialect adds no instructions.
SYSTEM_PROMPT: Final = (
    "Think inside <think></think>. Look up people inside <search></search>, run Python inside <code></code>. "
    "Put the final answer in <answer>\\boxed{}</answer>."
)

Step = tuple[str, int]
"""(operation, operand); the operation is a key of SIGNS."""


class Profile(msgspec.Struct, frozen=True):
    """Distribution of the tasks. Weights need not sum to 1."""

    families: dict[str, float]
    steps: dict[int, float]
    """Family `sum`: weights by number of operations."""
    hops: dict[int, float]
    """Family `fact`: weights by number of consecutive searches."""


PROFILES: Final[dict[str, Profile]] = {
    # The training distribution of pico-tags: mostly short tasks.
    "short": Profile(
        families={"sum": 0.4, "fact": 0.5, "both": 0.1},
        steps={1: 0.4, 2: 0.5, 3: 0.08, 4: 0.02},
        hops={1: 0.45, 2: 0.5, 3: 0.05},
    ),
    # The default for running the pipeline.
    "standard": Profile(
        families={"sum": 0.45, "fact": 0.4, "both": 0.15},
        steps={2: 0.2, 3: 0.4, 4: 0.4},
        hops={2: 0.5, 3: 0.5},
    ),
}


class Almanac:
    """The people of one split and all facts about them. Only the corpus of `edition` 0 is in the search index."""

    def __init__(self, split: str, edition: int = 0) -> None:
        rng = random.Random(f"almanac-{split}-{edition}")
        people: dict[str, None] = {}
        while len(people) < PEOPLE[split]:
            people[draw_name(rng, split)] = None
        self.people: Final = list(people)
        self.facts: Final[dict[str, dict[str, str]]] = {}
        """Values by field, then by person."""
        for field in RELATIONS:
            # A random cycle, so that no person is their own manager.
            order = rng.sample(self.people, len(self.people))
            self.facts[field] = dict(zip(order, [*order[1:], order[0]], strict=True))
        for field in NUMBERS:
            self.facts[field] = {name: str(rng.randint(11, 999)) for name in self.people}

    def documents(self) -> Iterator[Document]:
        """Yield one passage per fact."""
        for field, table in self.facts.items():
            for name in table:
                yield Document(id=f"{name.lower()}-{field}", contents=self.passage(field, name))

    def passage(self, field: str, name: str) -> str:
        """Return the passage for the query "FIELD of NAME". The title identifies its subject."""
        return f"{name}\nThe {field} of {name} is {self.facts[field][name]}."


@lru_cache(maxsize=4)
def almanac(split: str, edition: int = 0) -> Almanac:
    """Return the almanac of a split. Cached."""
    return Almanac(split, edition)


@lru_cache(maxsize=1)
def almanac_index() -> SearchIndex:
    """Return a BM25 index of the passages of all splits."""
    return SearchIndex.of(document for split in SPLITS for document in almanac(split).documents())


def generate(
    split: str, count: int, *, seed: int = 0, profile: str | Profile | None = None, edition: int = 0
) -> Iterator[Task]:
    """Generate `count` tasks of a split. Each task has its own seed, so that task i does not depend on `count`.

    `profile` defaults to `standard`. Raises InputError for an unknown split or profile.
    """
    if split not in SPLITS:
        raise InputError(f"unknown almanac split {split!r}: expected one of {', '.join(SPLITS)}")
    name = profile if isinstance(profile, str) else "standard" if profile is None else "custom"
    if isinstance(profile, Profile):
        chosen = profile
    elif name in PROFILES:
        chosen = PROFILES[name]
    else:
        raise InputError(f"unknown almanac profile {name!r}: expected one of {', '.join(PROFILES)}")
    book = f"-{edition}" if edition else ""
    for index in range(count):
        yield _task(f"almanac{book}-{split}-{name}-{seed}-{index}", split, chosen, almanac(split, edition))


def _task(task_id: str, split: str, profile: Profile, book: Almanac) -> Task:
    rng = random.Random(task_id)  # string seeds are hashed with SHA-512, so they are the same on every machine
    family = _choice(rng, profile.families)
    if family == "sum":
        question, calls, answer = _sum(rng, split, _choice(rng, profile.steps))
    elif family == "fact":
        question, calls, answer = _fact(rng, book, _choice(rng, profile.hops))
    else:
        question, calls, answer = _both(rng, book)
    return Task(
        id=task_id,
        messages=({"role": "system", "content": SYSTEM_PROMPT}, {"role": "user", "content": question}),
        tools=(PythonTool.spec(), SearchTool.spec()),
        gold=Gold(answers=(answer,), calls=tuple(calls)),
        source="almanac",
        split=split,
        judge="qa" if family == "fact" else "math",
        metadata={"family": family, "category": family},
    )


def _choice(rng: random.Random, weights: dict[Any, float]) -> Any:
    return rng.choices(list(weights), list(weights.values()))[0]


Built = tuple[str, list[ToolCall], str]
"""(question, gold calls, answer)."""


def _sum(rng: random.Random, split: str, steps: int) -> Built:
    while True:
        first, value, drawn = rng.randint(112, 989), 0, list[Step]()
        multiplications = 0
        for _ in range(steps):
            operation = rng.choice(("add", "subtract", "multiply") if multiplications < 2 else ("add", "subtract"))
            multiplications += operation == "multiply"
            number = rng.randint(12, 49) if operation == "multiply" else rng.randint(112, 989)
            drawn.append((operation, number))
        program = write_program(first, drawn)
        if split_of(program) == split:
            break
    value = first
    for step in drawn:
        value = calculated(value, step)
    wording = rng.choice(
        ("Take {}, {}. What is it?", "Find the result: {}, then {}.", "What is {} if you {}?")
    )  # fmt: skip
    worded = [f"{operation} {number}" if operation != "multiply" else f"multiply by {number}"
              for operation, number in drawn]  # fmt: skip
    return wording.format(first, ", then ".join(worded)), [python_call(program)], str(value)


def _fact(rng: random.Random, book: Almanac, hops: int) -> Built:
    start, fields, values = _chain(rng, book, hops, number=rng.random() < 0.6)
    phrase = _phrase(rng, start, fields)
    asks = "What is {}?" if fields[-1] in NUMBERS else "Who is {}?"
    question = rng.choice((asks, "Tell me {}.", "Find {}.")).format(phrase)
    return question, _searches(start, fields, values), values[-1]


def _both(rng: random.Random, book: Almanac) -> Built:
    first, second = (_chain(rng, book, 1, number=True) for _ in range(2))
    while second[:2] == first[:2]:
        second = _chain(rng, book, 1, number=True)
    operation = rng.choice(tuple(SIGNS))
    wording = {"add": "Add {0} and {1}.", "subtract": "Take {1} from {0}.", "multiply": "Multiply {0} by {1}."}
    step = (operation, int(second[2][-1]))
    value = calculated(int(first[2][-1]), step)
    question = wording[operation].format(_phrase(rng, *first[:2]), _phrase(rng, *second[:2]))
    program = write_program(int(first[2][-1]), [step])
    return question, [*_searches(*first), *_searches(*second), python_call(program)], str(value)


def _chain(rng: random.Random, book: Almanac, hops: int, *, number: bool) -> tuple[str, list[str], list[str]]:
    """Return the start person, the field of each hop, and the result of each hop."""
    fields = rng.sample(RELATIONS, hops)[: hops - number]
    if number:
        fields.append(rng.choice(NUMBERS))
    start = value = rng.choice(book.people)
    values = []
    for field in fields:
        value = book.facts[field][value]
        values.append(value)
    return start, fields, values


def _phrase(rng: random.Random, start: str, fields: Sequence[str]) -> str:
    """Return the chain in English: "Kalo's manager's age" or "the age of the manager of Kalo"."""
    if rng.random() < 0.5:
        return start + "'s " + "'s ".join(fields)
    return "the " + " of the ".join(reversed(fields)) + f" of {start}"


def _searches(start: str, fields: Sequence[str], values: Sequence[str]) -> list[ToolCall]:
    names = [start, *values[:-1]]
    return [
        ToolCall(name="search", arguments={"query": f"{field} of {name}"})
        for field, name in zip(fields, names, strict=True)
    ]


def python_call(program: str) -> ToolCall:
    """Return a call of the Python tool."""
    return ToolCall(name="python", arguments={"code": program})


def write_program(first: int, steps: Sequence[Step]) -> str:
    """Return the sum as a program with one line per step."""
    lines = [f"x = {first}", *(f"x {SIGNS[operation]}= {number}" for operation, number in steps), "print(x)"]
    return "\n".join(lines)


def calculated(value: int, step: Step) -> int:
    """Apply one step to `value`."""
    operation, number = step
    return value + number if operation == "add" else value - number if operation == "subtract" else value * number


FORMAT = WorldFormat(generate)
