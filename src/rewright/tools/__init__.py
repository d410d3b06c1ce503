"""Tools: function tools, the Python tool, the search tool, and combinations of them."""

from rewright.tools.base import Toolset, ToolsetFactory
from rewright.tools.combined import CombinedTools
from rewright.tools.functions import FunctionTools
from rewright.tools.python import PythonTool
from rewright.tools.retriever import Retriever
from rewright.tools.search import SearchTool
from rewright.tools.search_index import Document, SearchIndex

__all__ = [
    "CombinedTools",
    "Document",
    "FunctionTools",
    "PythonTool",
    "Retriever",
    "SearchIndex",
    "SearchTool",
    "Toolset",
    "ToolsetFactory",
]
