"""The package's own function schemas (`convert_to_tool`), as a program: `bfcl_schemas.py CATEGORY...`.

Prints one JSON object: the schemas of every entry by its id, as `OpenAICompletionsHandler` sends them. Replaced are
only modules that the package imports and does not use here, as in `bfcl_official`.
"""

from __future__ import annotations

import json
import sys
from types import ModuleType
from typing import Any


def given(name: str, **content: Any) -> None:
    sys.modules[name] = ModuleType(name)
    vars(sys.modules[name]).update(content)


def main(categories: list[str]) -> dict[str, Any]:
    given("overrides", final=lambda method: method)
    given("dotenv", load_dotenv=lambda *_, **__: True)
    given("bfcl_eval.constants.model_config", MODEL_CONFIG_MAPPING={})
    for language in ("java", "javascript"):
        short = "js" if language == "javascript" else language
        given(f"bfcl_eval.model_handler.parser.{short}_parser", **{f"parse_{language}_function_call": None})
    from bfcl_eval.constants.enums import ModelStyle
    from bfcl_eval.constants.type_mappings import GORILLA_TO_OPENAPI
    from bfcl_eval.model_handler.utils import convert_to_tool
    from bfcl_eval.utils import load_dataset_entry

    return {
        entry["id"]: convert_to_tool(entry["function"], GORILLA_TO_OPENAPI, ModelStyle.OPENAI_COMPLETIONS)
        for category in categories
        for entry in load_dataset_entry(category, include_prereq=False)
    }


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1:])))
