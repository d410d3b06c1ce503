r"""The almanac: tasks for the `tags` dialect, arithmetic that wants a program and questions that want a search.

Its corpus is generated: made-up people, one short passage for each fact about them, `TITLE\nSENTENCE` as in the
corpora of the field. The passage that answers a question cannot be guessed from it: each hop's query needs what the
hop before found. `tools.search: almanac` in a recipe is the index over it, built in memory when it is first needed.

Families
- `sum`: several steps of arithmetic on numbers that are too long for the head, best written as one program.
- `fact`: hops from person to person in the corpus ("the age of the mentor of the manager of Kalo").
- `both`: two facts to look up, then one calculation on them.

The splits share nobody and no sum: a name or a sum belongs to one of `train` and `heldout` by its hash. Not here: how a
model writes calls (dialects/), how tools run (tools/), worked examples (almanac_demonstrations.py).
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
"""How many people the corpus has of each split."""
RELATIONS: Final = PEOPLE_RELATIONS[:8]
SIGNS: Final = {"add": "+", "subtract": "-", "multiply": "*"}

# It describes the format itself (as short as pico needs it), so the dialect adds nothing to it.
SYSTEM_PROMPT: Final = (
    "Think inside <think></think>. Look up people inside <search></search>, run Python inside <code></code>. "
    "Put the final answer in <answer>\\boxed{}</answer>."
)

Step = tuple[str, int]
"""An operation (a key of SIGNS) and the number that it is done with."""


class Profile(msgspec.Struct, frozen=True):
    """Which tasks to draw. Weights need not sum to 1."""

    families: dict[str, float]
    steps: dict[int, float]
    """sum: how many operations."""
    hops: dict[int, float]
    """fact: how many searches in a row."""


PROFILES: Final[dict[str, Profile]] = {
    # What pico-tags was trained on: short tasks, hardly ever a longer one.
    "short": Profile(
        families={"sum": 0.4, "fact": 0.5, "both": 0.1},
        steps={1: 0.4, 2: 0.5, 3: 0.08, 4: 0.02},
        hops={1: 0.45, 2: 0.5, 3: 0.05},
    ),
    # What the pipeline is about.
    "standard": Profile(
        families={"sum": 0.45, "fact": 0.4, "both": 0.15},
        steps={2: 0.2, 3: 0.4, 4: 0.4},
        hops={2: 0.5, 3: 0.5},
    ),
}


class Almanac:
    """The people of one split and all facts about them. `edition` 0 is the one whose corpus can be searched."""

    def __init__(self, split: str, edition: int = 0) -> None:
        rng = random.Random(f"almanac-{split}-{edition}")
        people: dict[str, None] = {}
        while len(people) < PEOPLE[split]:
            people[draw_name(rng, split)] = None
        self.people: Final = list(people)
        self.facts: Final[dict[str, dict[str, str]]] = {}
        """By field, then by person."""
        for field in RELATIONS:
            # A cycle through everybody in random order: nobody is their own manager.
            order = rng.sample(self.people, len(self.people))
            self.facts[field] = dict(zip(order, [*order[1:], order[0]], strict=True))
        for field in NUMBERS:
            self.facts[field] = {name: str(rng.randint(11, 999)) for name in self.people}

    def documents(self) -> Iterator[Document]:
        """One passage for each fact."""
        for field, table in self.facts.items():
            for name in table:
                yield Document(id=f"{name.lower()}-{field}", contents=self.passage(field, name))

    def passage(self, field: str, name: str) -> str:
        """What a search for "FIELD of NAME" finds. The title says whom it is about: others name the same person."""
        return f"{name}\nThe {field} of {name} is {self.facts[field][name]}."


@lru_cache(maxsize=4)
def almanac(split: str, edition: int = 0) -> Almanac:
    """The almanac of a split, made once."""
    return Almanac(split, edition)


@lru_cache(maxsize=1)
def almanac_index() -> SearchIndex:
    """BM25 over the passages of all splits."""
    return SearchIndex.of(document for split in SPLITS for document in almanac(split).documents())


def generate(
    split: str, count: int, *, seed: int = 0, profile: str | Profile | None = None, edition: int = 0
) -> Iterator[Task]:
    """`count` tasks of a split, each drawn from its own seed, so that task i does not depend on `count`.

    `profile` defaults to `standard`. Raises InputError for unknown names.
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
    rng = random.Random(task_id)  # a string seed is hashed with SHA-512: the same on every machine
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
"""Question, gold calls, answer."""


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
    start, fields, found = _chain(rng, book, hops, number=rng.random() < 0.6)
    phrase = _phrase(rng, start, fields)
    asks = "What is {}?" if fields[-1] in NUMBERS else "Who is {}?"
    question = rng.choice((asks, "Tell me {}.", "Find {}.")).format(phrase)
    return question, _searches(start, fields, found), found[-1]


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
    """A start, the fields to follow, and what each hop finds."""
    fields = rng.sample(RELATIONS, hops)[: hops - number]
    if number:
        fields.append(rng.choice(NUMBERS))
    start = value = rng.choice(book.people)
    found = []
    for field in fields:
        value = book.facts[field][value]
        found.append(value)
    return start, fields, found


def _phrase(rng: random.Random, start: str, fields: Sequence[str]) -> str:
    """The chain in English: "Kalo's manager's age" or "the age of the manager of Kalo"."""
    if rng.random() < 0.5:
        return start + "'s " + "'s ".join(fields)
    return "the " + " of the ".join(reversed(fields)) + f" of {start}"


def _searches(start: str, fields: Sequence[str], found: Sequence[str]) -> list[ToolCall]:
    names = [start, *found[:-1]]
    return [
        ToolCall(name="search", arguments={"query": f"{field} of {name}"})
        for field, name in zip(fields, names, strict=True)
    ]


def python_call(program: str) -> ToolCall:
    """A call of the Python tool."""
    return ToolCall(name="python", arguments={"code": program})


def write_program(first: int, steps: Sequence[Step]) -> str:
    """The sum as a program: one line for each step."""
    lines = [f"x = {first}", *(f"x {SIGNS[operation]}= {number}" for operation, number in steps), "print(x)"]
    return "\n".join(lines)


def calculated(value: int, step: Step) -> int:
    """`value` after one step."""
    operation, number = step
    return value + number if operation == "add" else value - number if operation == "subtract" else value * number


FORMAT = WorldFormat(generate)
