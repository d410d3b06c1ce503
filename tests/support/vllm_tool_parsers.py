"""Reads calls with vLLM's own tool parsers; run by the interpreter of the environment of vLLM.

    python vllm_tool_parsers.py FOLDER

FOLDER has tokenizers and `rows.json`: a list of {"parser", "tokenizer" (its folder), "text", "tools"}. It prints the
list of calls of each row as [name, arguments] pairs, or {"problem": text}.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def main(folder: Path) -> None:
    """Read the rows and print what each parser finds."""
    from transformers import PreTrainedTokenizerFast
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
    from vllm.tool_parsers import ToolParserManager

    rows = json.loads((folder / "rows.json").read_text(encoding="utf-8"))
    names = {row["tokenizer"] for row in rows}
    tokenizers = {name: PreTrainedTokenizerFast.from_pretrained(folder / name) for name in names}

    def read(row: dict[str, Any]) -> Any:
        request = ChatCompletionRequest(
            model="m", messages=[{"role": "user", "content": "q"}], tools=row["tools"], tool_choice="auto"
        )
        parser = ToolParserManager.get_tool_parser(row["parser"])(tokenizers[row["tokenizer"]], request.tools)
        found = parser.extract_tool_calls(row["text"], request)
        return [[one.function.name, json.loads(one.function.arguments or "{}")] for one in found.tool_calls]

    results = []
    for row in rows:
        try:
            results.append(read(row))
        except Exception as problem:
            results.append({"problem": f"{type(problem).__name__}: {problem}"})
    print("\n" + json.dumps(results))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
