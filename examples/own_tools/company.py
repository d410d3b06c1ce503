"""Three tools of your own: plain functions. What one returns is what the model reads; what it raises, too."""

PEOPLE = {
    "Tuna": {"manager": "Duvu", "age": 36, "rent": 71},
    "Bolo": {"manager": "Tuna", "age": 41, "rent": 28},
    "Kalo": {"manager": "Tuna", "age": 29, "rent": 65},
    "Duvu": {"manager": "Lunon", "age": 52, "rent": 90},
    "Lunon": {"manager": "Duvu", "age": 58, "rent": 44},
    "Zame": {"manager": "Kalo", "age": 33, "rent": 17},
}


def _row(person: str) -> dict:
    if person not in PEOPLE:
        raise ValueError(f"nobody is called {person}; known are {', '.join(PEOPLE)}")
    return PEOPLE[person]


def get_manager(person: str) -> str:
    """The manager of a person."""
    return _row(person)["manager"]


def get_age(person: str) -> int:
    """The age of a person."""
    return _row(person)["age"]


def get_rent(person: str) -> int:
    """The rent of a person."""
    return _row(person)["rent"]
