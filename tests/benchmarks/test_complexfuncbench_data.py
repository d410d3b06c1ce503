"""How ComplexFuncBench's data are found, shortened and stored, with a small package of the same shape."""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewright.benchmarks.complexfuncbench.data import question_file, questions
from rewright.benchmarks.complexfuncbench.shortening import MIN_CHARACTERS, json_text, shortened
from rewright.core.errors import InputError
from rewright.core.records import ToolResult, Trajectory, Turn
from rewright.judging import judge_trajectory
from rewright.rollout.toolsets import open_toolsets
from rewright.sandbox.settings import SandboxSettings
from rewright.tasks.loading import load_tasks
from rewright.tools.settings import ToolSettings
from support.in_process import rewright

NAME = "complexfuncbench"
FUNCTIONS = [
    {
        "id": None, "name": "Search_Car_Location", "description": "Finds a place.", "host": "h",
        "endpoint": "/api/v1/cars/searchDestination", "sample_responses": [{"a": 1}],
        "query_parameters": {
            "query": {"type": "string", "description": "", "required": True, "enum": [], "default": None},
        },
    },
    {
        "id": None, "name": "Rent(Car)", "description": "Rents a car.", "host": "h", "endpoint": "/api/v1/cars/rent",
        "query_parameters": {
            "place": {"type": "string", "description": "Its id.", "required": True, "enum": [], "default": None},
            "days": {"type": "number", "description": "", "required": False, "enum": [], "default": None},
            "legs": {"type": "array", "description": "", "required": False, "enum": [], "default": None},
        },
    },
]  # fmt: skip
ROW = {
    "input": " Rent a car in Rome.",
    "output": [
        {
            "name": "Search_Car_Location", "arguments": {"query": "Rome"}, "label": "var1", "errors": [],
            "response": [{"id": "place-41"}, {"id": "place-42"}],
        },
        {
            "name": "Rent(Car)", "arguments": {"place": "$var1.id$", "days": 1}, "label": "var2", "errors": [],
            "response": {"price": 12.5, "terms": "long " * 400},
        },
        {"name": "Rent(Car)", "arguments": {"place": "place-42"}, "label": "var3", "errors": [], "response": {}},
    ],
}  # fmt: skip


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of an installed package with one row, and an empty cache."""
    folder = tmp_path / "site"
    (folder / "nestful_wrapper-0.1.7.dist-info").mkdir(parents=True)
    (folder / "nestful_wrapper-0.1.7.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: nestful-wrapper\nVersion: 0.1.7\n"
    )
    data = folder / "data_v1" / NAME
    data.mkdir(parents=True)
    (data / f"{NAME}-spec.json").write_text(json.dumps(FUNCTIONS))
    (data / f"{NAME}-data.json").write_text(json.dumps([ROW], indent=4))
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("REWRIGHT_CACHE", str(tmp_path / "cache"))
    return folder


def test_a_row_becomes_a_task(package: Path) -> None:
    (task,) = load_tasks("all", NAME)
    assert task.messages == ({"role": "user", "content": "Rent a car in Rome."},)
    assert [(call.name, call.arguments) for call in task.gold.calls or ()] == [
        ("Search_Car_Location", {"query": "Rome"}),
        ("Rent_Car", {"place": "place-41", "days": 1}),
        ("Rent_Car", {"place": "place-42"}),
    ]
    assert (task.metadata["category"], task.metadata["needs"]) == ("cars", [[], [0], [0]])
    assert task.metadata["renamed_tools"] == {"Rent_Car": "Rent(Car)"}
    assert [tool.name for tool in task.tools] == ["Search_Car_Location", "Rent_Car"]
    assert task.tools[1].schema["function"]["parameters"] == {
        "type": "object",
        "properties": {
            "place": {"type": "string", "description": "Its id."},
            "days": {"type": "number"},
            "legs": {"type": "array", "items": {"type": "object"}},
        },
        "required": ["place"],
    }
    (whole,) = load_tasks("all,characters=whole", NAME)
    texts = [one.tools[1].data["results"][0]["results"][0]["content"] for one in (task, whole)]
    assert json.loads(texts[0]) == {"price": 12.5, "…": 1}
    (short,) = load_tasks("all,characters=50", NAME)
    assert short.tools[1].data == {**task.tools[1].data, "characters": 50}
    assert json.loads(texts[1]) == ROW["output"][1]["response"]  # type: ignore[index]


def test_the_questions_are_read_from_the_package_and_from_what_is_stored_of_it(package: Path, tmp_path: Path) -> None:
    asked = [("Rent a car in Rome.", ("Search_Car_Location", "Rent(Car)", "Rent(Car)"))]
    own = question_file()
    assert own == package / "data_v1" / NAME / f"{NAME}-data.json"
    assert list(questions(own)) == asked
    load_tasks("all", NAME)
    stored = question_file()
    assert stored is not None
    assert stored.parent == tmp_path / "cache"
    assert list(questions(stored)) == asked
    stored.write_text("{")
    with pytest.raises(InputError, match="truncated"):
        list(questions(stored))


def test_what_is_stored_is_enough(package: Path, tmp_path: Path) -> None:
    made = load_tasks("all", NAME)
    (stored,) = (tmp_path / "cache").iterdir()
    assert stored.name == f"{NAME}-0.1.7-800.json"
    (package / "data_v1" / NAME / f"{NAME}-data.json").unlink()
    assert load_tasks("all", NAME) == made
    rewright(tmp_path, "validate", "all,characters=400", "--format", NAME).refused(
        f"{NAME}-data.json is missing: pip install --no-deps nestful-wrapper==0.1.7 --force-reinstall"
    )


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[1, 2]", b'{"functions": {}, "renamed": {}, "entries": [], "format": 0}']
)
def test_a_broken_or_older_stored_file_is_made_again(package: Path, tmp_path: Path, content: bytes) -> None:
    made = load_tasks("all", NAME)
    (stored,) = (tmp_path / "cache").iterdir()
    right = stored.read_bytes()
    stored.write_bytes(content)
    assert load_tasks("all", NAME) == made
    assert stored.read_bytes() == right
    assert list((tmp_path / "cache").iterdir()) == [stored]


def test_a_cache_that_cannot_be_written_is_said(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("REWRIGHT_CACHE", str(tmp_path / "file"))
    assert len(load_tasks("all", NAME)) == 1
    assert "the responses of ComplexFuncBench are read again next time" in capsys.readouterr().err


def test_missing_data_are_named_with_the_command(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = rewright(tmp_path, "eval", "--benchmark", NAME, "eval.tasks.path=tset", "--run", "none")
    said.refused("complexfuncbench has no part 'tset'")
    (package / "data_v1" / NAME / f"{NAME}-spec.json").write_text('[{"name": 1}]')
    rewright(tmp_path, "validate", "all", "--format", NAME).refused(f"{NAME}-spec.json: Expected `str`, got `int`")
    metadata = package / "nestful_wrapper-0.1.7.dist-info" / "METADATA"
    metadata.write_text("Metadata-Version: 2.1\nName: nestful-wrapper\nVersion: 0.2.0\n")
    rewright(tmp_path, "validate", "all", "--format", NAME).refused(
        "from nestful-wrapper 0.1.7, not 0.2.0: pip install"
    )

    def not_installed(name: str) -> Any:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", not_installed)
    missing = "needs the data of the package nestful-wrapper: pip install --no-deps nestful-wrapper==0.1.7"
    rewright(tmp_path, "validate", "test", "--format", NAME).refused(missing)
    rewright(tmp_path, "eval", "--benchmark", NAME, "--run", "none").refused(missing)
    assert not (tmp_path / "none").exists()


def test_a_task_file_names_neither_a_file_nor_code(package: Path, tmp_path: Path) -> None:
    (task,) = load_tasks("all", NAME)
    tools = open_toolsets(ToolSettings(), SandboxSettings())
    for wrong in ("../../name", 49, True, {}, 800.0):
        tool = msgspec.structs.replace(task.tools[0], data={**task.tools[0].data, "characters": wrong})
        with pytest.raises(InputError, match=r"data\.characters is .*: expected null or at least 50"):
            tools.open([tool])
    assert {path.name for path in (tmp_path / "cache").iterdir()} == {f"{NAME}-0.1.7-800.json"}
    compare = {"arguments": {"*": {"query": "os:system"}}}
    other = msgspec.structs.replace(task, metadata={**task.metadata, "compare": compare})
    call = (task.gold.calls or ())[0]
    turn = Turn("", calls=(call,), results=(ToolResult("[]"),))
    one = Trajectory(id="a", task_id=task.id, stage="eval", index=0, turns=(turn,), stop_reason="no_answer")
    assert judge_trajectory(task, one).metrics["rule_matched_calls"] == pytest.approx(1 / 3)
    with pytest.raises(InputError, match=r"metadata\.compare names code \(os:system\)"):
        judge_trajectory(other, one)


def test_shortened_values_are_whole_or_left_out() -> None:
    value = {"meta": {"found": 2}, "hotels": [{"id": 7, "name": "n" * 60}, {"id": 8}], "key": "k" * 150}
    assert json.loads(shortened(value, 150)) == {
        "meta": {"found": 2},
        "hotels": [{"id": 7, "…": 1}, {"id": 8}],
        "…": 1,
    }
    assert json.loads(shortened(value, 300)) == value
    assert json.loads(shortened([list(range(100))], 60))[0][:3] == [0, 1, 2]
    assert shortened("t" * 500, 60) == json_text("t" * 500)
    with pytest.raises(ValueError, match="characters is 49: expected at least 50"):
        shortened(value, MIN_CHARACTERS - 1)


_TEXTS = st.text('ab "\\…', max_size=40)
_LEAVES = st.none() | st.booleans() | st.integers() | st.floats(-9, 9) | _TEXTS
_VALUES = st.recursive(_LEAVES, lambda inner: st.lists(inner, max_size=6) | st.dictionaries(_TEXTS, inner, max_size=6))


@settings(max_examples=30)
@given(st.lists(_VALUES) | st.dictionaries(_TEXTS, _VALUES), st.integers(MIN_CHARACTERS, 400))
def test_shortened_text_is_json_within_its_limit(value: Any, characters: int) -> None:
    text = shortened(value, characters)
    assert len(text) <= characters
    assert shortened(value, characters) == text
    if len(json_text(value)) <= characters:
        assert json.loads(text) == value
    else:
        assert type(json.loads(text)) is type(value)
