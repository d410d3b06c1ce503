"""An engine takes new weights: running turns are completed with the old ones, and each turn says which made it."""

from __future__ import annotations

import asyncio

import pytest
import torch

from engines.test_hf_engine import build, check, opened, prompt, request  # type: ignore[import-not-found]
