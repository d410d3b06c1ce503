"""Three tools. The model reads what a function returns, and the message of what it raises."""

MANAGERS = {"Tuna": "Duvu", "Bolo": "Tuna", "Kalo": "Tuna", "Duvu": "Lunon", "Lunon": "Duvu"}
AGES = {"Tuna": 36, "Bolo": 41, "Kalo": 29, "Duvu": 52, "Lunon": 58}


def get_manager(person: str) -> str:
    """The manager of a person."""
    _check(person)
    return MANAGERS[person]


def get_age(person: str) -> int:
    """The age of a person."""
    _check(person)
    return AGES[person]


def add(a: float, b: float) -> float:
    """The sum of two numbers."""
    return a + b


def _check(person: str) -> None:
    if person not in AGES:
        raise LookupError(f"no entry for {person}")
