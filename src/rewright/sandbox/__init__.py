"""Execution of untrusted code: the local sandbox with its isolation levels, and the `Executor` interface."""

from rewright.sandbox.capabilities import Capabilities, Capability, capabilities
from rewright.sandbox.errors import ERROR_KINDS, ErrorKind, error_kind
from rewright.sandbox.executor import Executor, ExecutorSession
from rewright.sandbox.remote import RemoteSandbox
from rewright.sandbox.sandbox import Level, Sandbox
from rewright.sandbox.session import Session

__all__ = [
    "ERROR_KINDS",
    "Capabilities",
    "Capability",
    "ErrorKind",
    "Executor",
    "ExecutorSession",
    "Level",
    "RemoteSandbox",
    "Sandbox",
    "Session",
    "capabilities",
    "error_kind",
]
