"""The Python examples of docs/credit.md run, and print what the page says."""

import contextlib
import io
import re
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "credit.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("source", re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL))
def test_examples_print_what_the_page_says(source):
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(source, "docs/credit.md", "exec"), {})
    expected = [line.removeprefix("# ") for line in source.splitlines() if line.startswith("# ")]
    assert printed.getvalue().splitlines() == expected
