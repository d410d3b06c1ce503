r"""Units of a number: physical units, currencies, percent, and words such as "apples".

`measured` splits a text into value and unit. Units are normalised but not converted: `12 km/h`,
`12 \text{ kilometers per hour}` and `12 km h^{-1}` have the same unit; `2 kJ` and `2000 J` do not.
"""

from __future__ import annotations

import re

__all__ = ["measured", "same_unit"]

_BASE = {
    "m": "meter metre", "g": "gram gramme", "s": "sec second", "l": "liter litre", "J": "joule", "W": "watt",
    "N": "newton", "Pa": "pascal", "V": "volt", "A": "ampere amp", "Hz": "hertz", "K": "kelvin", "mol": "mole",
    "B": "byte", "C": "coulomb", "F": "farad", "T": "tesla", "cal": "calorie", "eV": "electronvolt", "Wh": "",
    "ohm": "Ohm Omega", "bit": "",
}  # fmt: skip
_OTHER = {
    "in": "inch inches", "ft": "foot feet", "yd": "yard", "mi": "mile", "lb": "lbs pound", "oz": "ounce",
    "min": "minute", "h": "hr hour", "day": "", "week": "", "month": "", "year": "yr", "dollar": "usd", "cent": "",
    "euro": "eur", "sterling": "gbp", "yen": "jpy", "degree": "deg", "rad": "radian", "gal": "gallon", "acre": "",
    "celsius": "centigrade", "fahrenheit": "", "ha": "hectare", "%": "percent pct percentage", "atm": "atmosphere",
    "t": "ton tonne", "rupee": "rs inr", "knot": "",
}  # fmt: skip
_PREFIXES = {"k": "kilo", "M": "mega", "G": "giga", "T": "tera", "m": "milli", "c": "centi", "d": "deci", "n": "nano",
             "u": "micro", "h": "hecto", "p": "pico"}  # fmt: skip
_PREFIXABLE = ("m", "g", "s", "l", "J", "W", "N", "Pa", "V", "A", "Hz", "mol", "B", "cal", "eV", "Wh", "ohm", "bit",
               "F", "C")  # fmt: skip
_COMPOUND = {"mph": (("mi", 1), ("h", -1)), "kph": (("km", 1), ("h", -1)), "kmh": (("km", 1), ("h", -1)),
             "kmph": (("km", 1), ("h", -1)), "mps": (("m", 1), ("s", -1)), "fps": (("ft", 1), ("s", -1)),
             "sqm": (("m", 2),), "sqft": (("ft", 2),), "cc": (("cm", 3),)}  # fmt: skip
_CURRENCIES = {"$": "dollar", "€": "euro", "£": "sterling", "¥": "yen", "₹": "rupee"}


def _tables() -> tuple[dict[str, str], dict[str, str]]:
    symbols: dict[str, str] = {}
    words: dict[str, str] = {}
    for unit, aliases in {**_BASE, **_OTHER}.items():
        symbols[unit] = unit
        for alias in aliases.split():
            words[alias.lower()] = unit
        if len(unit) > 1:
            words.setdefault(unit.lower(), unit)
    for unit in _PREFIXABLE:
        for sign, prefix in _PREFIXES.items():
            symbols.setdefault(sign + unit, sign + unit)
            for alias in _BASE[unit].split():
                words.setdefault((prefix + alias).lower(), sign + unit)
    symbols["L"] = "l"
    symbols["mL"] = "ml"
    return symbols, words


_SYMBOLS, _NAMES = _tables()
_CASELESS = {symbol.lower(): symbol for symbol in ("km", "cm", "mm", "kg", "mg", "ml", "khz", "kw")} | {
    "hz": "Hz", "khz": "kHz", "pa": "Pa", "kw": "kW", "kpa": "kPa", "kj": "kJ", "kwh": "kWh", "ev": "eV",
}  # fmt: skip
_NOT_UNITS = frozenset(
    ("and", "or", "if", "is", "are", "when", "where", "for", "to", "of", "pi", "i", "e", "x", "y", "z", "n", "k", "the",
     "a", "an", "not", "than", "times", "plus", "minus")
)  # fmt: skip

_TEXT = re.compile(
    r"\\(?:text(?:rm|it|bf|normal)?|mbox|mathrm|operatorname|mathit|mathsf|rm)\s*\{((?:[^{}]|\{[^{}]*\})*)\}"
)
_POWER = r"\^\s*(?:\{\s*)?(-?[0-9])\s*\}?"
_TOKEN = re.compile(rf"([a-zA-Z]+|%)\s*(?:{_POWER})?")
_TAIL = re.compile(
    r"(.*?[0-9}).!]|.*?\\pi(?![a-zA-Z]))(\s*)((?:\\Omega|\\mu(?![a-zA-Z])|\\text|\\mbox|\\mathrm|\\operatorname|\\mathit|\\mathsf|\\rm|\\%|%|"
    r"\^\s*\\circ|[a-zA-Z])(?:[a-zA-Z\s{}^0-9/.,%*-]|\\(?:text(?:rm|it|bf|normal)?|mbox|mathrm|cdot|circ|%|operatorname|Omega|mu(?![a-zA-Z])))*)",
    re.DOTALL,
)
_ONE_LETTER = re.compile(r"[a-zA-Z](?:\s*\^.*)?", re.DOTALL)
_NUMBER = re.compile(
    r"(?:[a-zA-Z]\s*=\s*)?[-+]?(?:[0-9][0-9.,/ ]*|\\frac\s*\{[0-9]+\}\s*\{[0-9]+\}|[0-9]+\s*\\frac\{[0-9]+\}\{[0-9]+\})"
)
_CURRENCY = re.compile(r"([-+]?)\s*(?:\\?([$€£¥₹])|(USD|EUR|GBP|JPY|INR|Rs)\.?\s)\s*(?=[-+0-9.\\])(?!.*\$)", re.DOTALL)
_CURRENCY_AFTER = re.compile(r"([-+]?[0-9][0-9.,]*)\s*\\?([$€£¥₹])")
_WORDS = re.compile(r"[a-zA-Z][a-zA-Z'-]*(?:\s+[a-zA-Z][a-zA-Z'-]*){0,3}\.?")

Unit = tuple[tuple[str, int], ...] | str
"""Sorted (unit, exponent) pairs of known units, or the words of an unknown unit."""


def measured(text: str, *, letters: bool = False) -> tuple[str, Unit] | None:
    r"""Return (value, unit) of a text that ends with a unit or begins with a currency sign, else None.

    A single letter counts as a unit inside `\text{}` or as part of a compound unit. Elsewhere it may be a variable
    ("5 m" may be a product), so it counts only with `letters=True`.
    """
    if (currency := _CURRENCY.match(text)) is not None:
        rest = text[currency.end() :]
        name = _CURRENCIES[currency[2]] if currency[2] else _NAMES[currency[3].lower()]
        inner = measured(rest, letters=False)
        if inner is None:
            return currency[1] + rest, ((name, 1),)
        return currency[1] + inner[0], inner[1] if inner[1] != (("%", 1),) else ((name, 1),)
    if (behind := _CURRENCY_AFTER.fullmatch(text)) is not None:
        return behind[1].strip(), ((_CURRENCIES[behind[2]], 1),)
    for split in _tails(text):
        value, unit_text = split
        in_text = _TEXT.search(unit_text) is not None
        unit = _unit(unit_text)
        if unit is None:
            continue
        if isinstance(unit, str):
            if not in_text and _NUMBER.fullmatch(value.strip()) is None:
                continue
            if not in_text and len(unit) < 2:
                continue
        elif not letters and not in_text and _ONE_LETTER.fullmatch(unit_text.strip()):
            continue
        return value.strip(), unit
    return None


def _tails(text: str) -> list[tuple[str, str]]:
    """Return candidate splits into (value, unit text), shortest value first."""
    splits: list[tuple[str, str]] = []
    start = 0
    while len(splits) < 8 and (split := _TAIL.fullmatch(text, start)) is not None:
        splits.append((text[: split.start(3)], split[3]))
        start = split.start(3) + 1
    return splits


def _unit(text: str) -> Unit | None:
    """Parse a unit: powers of known units, or words. Returns None for anything else."""
    plain = _TEXT.sub(lambda command: f" {command[1]} ", text).replace(r"\%", "%")
    plain = re.sub(r"\\mu\s*", "u", plain.replace(r"\Omega", "ohm"))
    plain = re.sub(r"\^\s*\\circ\s*", " degree ", plain).replace(r"\cdot", "*").replace("{}", "")
    plain = re.sub(r"\s+", " ", re.sub(r"(?<=[a-zA-Z])\s+(?=\^)", "", plain)).strip().rstrip(".").strip()
    if not plain:
        return None
    known = _known(plain)
    if known is not None:
        return known
    power = re.search(r"\s*\^\s*\{?\s*([1-4])\s*\}?$", plain)
    if power is not None:
        plain = plain[: power.start()]
    if _WORDS.fullmatch(plain) is None:
        return None
    words = plain.lower().split()
    if any(word in _NOT_UNITS for word in words):
        return None
    name = " ".join(word.removesuffix("s") for word in words)
    return name if power is None else f"{name}^{power[1]}"


def _known(text: str) -> Unit | None:
    powers: dict[str, int] = {}
    text = re.sub(r"\s*(?:/|\bper\b)\s*", " / ", text).replace("*", " ")
    sign, square = 1, 0
    position = 0
    while position < len(text):
        if text[position] in " ,":
            position += 1
            continue
        if text[position] == "/":
            sign, position = -1, position + 1
            continue
        token = _TOKEN.match(text, position)
        if token is None:
            return None
        position = token.end()
        word, power = token[1], int(token[2] or 1)
        if word.lower() in ("square", "sq"):
            square = 2
            continue
        if word.lower() == "cubic":
            square = 3
            continue
        if word.lower() in ("squared", "cubed") and powers:
            last = next(reversed(powers))
            powers[last] *= 2 if word.lower() == "squared" else 3
            continue
        factors = _COMPOUND.get(word.lower()) or _factor(word)
        if factors is None:
            return None
        for name, factor in factors:
            powers[name] = powers.get(name, 0) + sign * factor * power * (square or 1)
        square = 0
    if "degree" in powers and len(powers) > 1:  # degrees Celsius
        powers.pop("degree")
        powers = {{"C": "celsius", "F": "fahrenheit"}.get(name, name): power for name, power in powers.items()}
    return tuple(sorted(powers.items())) or None


def _factor(word: str) -> tuple[tuple[str, int], ...] | None:
    for name in (word, word.removesuffix("s") if len(word) > 3 else word):
        unit = _SYMBOLS.get(name) or _NAMES.get(name.lower()) or _CASELESS.get(name.lower())
        if unit is not None:
            return ((unit, 1),)
    return None


def same_unit(left: Unit, right: Unit) -> bool:
    """Return True if both units are the same. Words are compared without their plural."""
    return left == right
