"""Readers that follow what LLaMA-Factory 0.9.5, ms-swift 4.6 and verl 0.9.1 publish about their data, in our words.

They are strict where the projects are lenient in silence: a row that LLaMA-Factory would drop is an error here.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

Message = dict[str, Any]


def llama_factory(folder: Path, name: str) -> list[dict[str, Any]]:
    """Rows of a data set of `dataset_info.json`: prompt, response(s), system, tools (`SharegptDatasetConverter`)."""
    entry = json.loads((folder / "dataset_info.json").read_text())[name]
    assert entry["formatting"] == "sharegpt"
    columns, ranking = entry["columns"], entry.get("ranking", False)
    rows = []
    for line in (folder / entry["file_name"]).read_text().splitlines():
        given = json.loads(line)
        talk = given[columns["messages"]]
        for index, message in enumerate(talk):
            assert set(message) == {"from", "value"}
            assert message["from"] in (("human", "observation"), ("gpt", "function_call"))[index % 2]
        assert len(talk) % 2 == (1 if ranking else 0)
        read: dict[str, Any] = {"system": given[columns["system"]], "tools": json.loads(given[columns["tools"]])}
        if ranking:
            sides = [given[columns[side]] for side in ("chosen", "rejected")]
            assert all(side["from"] in ("gpt", "function_call") for side in sides)
            read |= {"prompt": talk, "responses": sides}
        else:
            read |= {"prompt": talk[:-1], "responses": talk[-1:]}
        read["calls"] = [function_call(one["value"]) for one in talk if one["from"] == "function_call"]
        rows.append(read)
    return rows


def function_call(text: str) -> tuple[str, list[dict[str, Any]]]:
    """(what stands before the calls, calls) of a `function_call` (`FunctionFormatter` with Qwen's words)."""
    tagged = re.search(r"<tool_call>(.*?)</tool_call>", text, re.DOTALL)
    thought = re.search(r"<think>\n(.*?)\n</think>\n\n", text, re.DOTALL)
    if tagged:
        before, body = text.replace(tagged[0], ""), tagged[1]
    else:
        before, body = (thought[0], text.replace(thought[0], "")) if thought else ("", text)
    calls = json.loads(body)
    calls = calls if isinstance(calls, list) else [calls]
    return before, [{"name": call["name"], "arguments": call["arguments"]} for call in calls]


def swift(path: Path) -> list[dict[str, Any]]:
    """Rows of a JSON Lines file; each side is messages with the calls read, and its tools (`RowPreprocessor`)."""
    rows = []
    for line in path.read_text().splitlines():
        given = json.loads(line)
        row = {}
        for prefix in ("", "rejected_"):
            if f"{prefix}messages" in given:
                messages = [swift_message(message) for message in given[f"{prefix}messages"]]
                row[prefix or "chosen"] = (messages, json.loads(given[f"{prefix}tools"]))
        rows.append(row)
    return rows


def swift_message(message: Message) -> Message:
    assert set(message) <= {"role", "content"} | ({"name"} if message["role"] == "tool_response" else set())
    assert message["role"] in {"system", "user", "assistant", "tool_call", "tool_response"}
    assert isinstance(message["content"], str)
    if message["role"] != "tool_call":
        return message
    call = json.loads(message["content"])
    assert set(call) == {"name", "arguments"}
    return {**message, "content": call}


def verl_sft(path: Path) -> list[tuple[list[Message], list[dict[str, Any]]]]:
    """(messages, tools) as `rewright.integrations.verl.sft` hands them to the chat template."""
    import pyarrow.parquet as pq

    rows = pq.read_table(path).to_pylist()
    assert all(set(message) == {"role", "content"} for row in rows for message in row["messages"])
    return [(row["messages"], json.loads(row["tools"])) for row in rows]


def verl_prompts(path: Path) -> list[dict[str, Any]]:
    """Rows as `RLHFDataset` hands them to an agent loop."""
    import pyarrow.parquet as pq

    rows = pq.read_table(path).to_pylist()
    for row in rows:
        assert {"data_source", "prompt", "ability", "reward_model", "extra_info", "agent_name"} == set(row)
        assert {"style", "ground_truth"} == set(row["reward_model"])
        assert isinstance(row["extra_info"]["index"], int)
    return rows
