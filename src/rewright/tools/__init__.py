"""Tools and what executes them: function tools, the Python tool and the sandbox under both, and the search tool."""

from rewright.tools.base import Toolset, ToolsetFactory
from rewright.tools.capabilities import Capabilities, Capability, capabilities
from rewright.tools.combined import CombinedTools
from rewright.tools.errors import ERROR_KINDS, ErrorKind, error_kind
from rewright.tools.executor import Executor, ExecutorSession
from rewright.tools.functions import FunctionTools
from rewright.tools.python import PythonTool
from rewright.tools.remote import RemoteSandbox
from rewright.tools.retriever import Retriever
from rewright.tools.sandbox import Level, Sandbox
from rewright.tools.search import SearchTool
from rewright.tools.search_index import Document, SearchIndex
from rewright.tools.session import Session

__all__ = [
    "ERROR_KINDS",
    "Capabilities",
    "Capability",
    "CombinedTools",
    "Document",
    "ErrorKind",
    "Executor",
    "ExecutorSession",
    "FunctionTools",
    "Level",
    "PythonTool",
    "RemoteSandbox",
    "Retriever",
    "Sandbox",
    "SearchIndex",
    "SearchTool",
    "Session",
    "Toolset",
    "ToolsetFactory",
    "capabilities",
    "error_kind",
]
