"""Tools and what executes them."""

from rewright.tools.base import Toolset, ToolsetFactory
from rewright.tools.errors import ERROR_KINDS, ErrorKind, error_kind
from rewright.tools.functions import FunctionTools
from rewright.tools.sandbox import Level, Sandbox
from rewright.tools.session import Session

__all__ = [
    "ERROR_KINDS",
    "ErrorKind",
    "FunctionTools",
    "Level",
    "Sandbox",
    "Session",
    "Toolset",
    "ToolsetFactory",
    "error_kind",
]
