"""Three tools. The model reads what a function returns, and the message of what it raises."""

PEOPLE = {
    "Tuna": {"manager": "Duvu", "age": 36},
    "Bolo": {"manager": "Tuna", "age": 41},
    "Kalo": {"manager": "Tuna", "age": 29},
    "Duvu": {"manager": "Lunon", "age": 52},
    "Lunon": {"manager": "Duvu", "age": 58},
}


def get_manager(person: str) -> str:
    """The manager of a person."""
    return str(_row(person)["manager"])


def get_age(person: str) -> int:
    """The age of a person."""
    return int(_row(person)["age"])


def add(a: float, b: float) -> float:
    """The sum of two numbers."""
    return a + b


def _row(person: str) -> dict[str, str | int]:
    if person not in PEOPLE:
        raise LookupError(f"no entry for {person}")
    return PEOPLE[person]
