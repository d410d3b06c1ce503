"""Write the ids of BFCL's rows of more than 1,024 tokens, which take no part in the split (benchmarks/bfcl/split.py).

    python scripts/bfcl_long_rows.py TOKENIZER > src/rewright/benchmarks/bfcl/long_rows.txt

TOKENIZER is the file tokenizer.json of SmolLM2-135M-Instruct. The length of a row is that of its schemas, messages and
gold calls as JSON, with 60 tokens for the template and 12 for each call.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from rewright.benchmarks.bfcl.entries import PYTHON, entries, possible_answers
from rewright.benchmarks.bfcl.split import IRRELEVANT

LIMIT = 1024


def long_rows(tokenizer: Tokenizer) -> Iterator[str]:
    """Yield the ids of the rows that are longer than LIMIT."""

    def length(text: str) -> int:
        return len(tokenizer.encode(text, add_special_tokens=False).ids)

    for category in (*PYTHON, *IRRELEVANT):
        for identity, entry in entries(category).items():
            said = " ".join(message["content"] for messages in entry["question"] for message in messages)
            total = length(json.dumps(entry["function"])) + length(said) + 60
            if category in PYTHON:
                gold = possible_answers(category)[identity]
                total += length(json.dumps(_first_values(gold))) + 12 * len(gold)
            if total > LIMIT:
                yield identity


def _first_values(gold: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "arguments": {key: allowed[0] for key, allowed in arguments.items() if allowed and allowed[0] != ""},
        }
        for call in gold
        for name, arguments in call.items()
    ]


if __name__ == "__main__":
    print("\n".join(long_rows(Tokenizer.from_file(str(Path(sys.argv[1]))))))
