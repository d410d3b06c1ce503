"""Task formats of the question sets: required columns and published locations."""

from __future__ import annotations

from rewright.benchmarks.questions import tasks
from rewright.tasks.formats import RowFormat

__all__ = [
    "AIME24", "AIME25", "AMC23", "AUTOTRAJ", "BAMBOOGLE", "GSM8K", "HLE", "HOTPOTQA", "MATH", "MULTIHOP", "MUSIQUE",
]  # fmt: skip

_FLASHRAG = "RUC-NLPIR/FlashRAG_datasets"

GSM8K = RowFormat(tasks.gsm8k, ("question", "answer"), ("openai/gsm8k", "main", "test"))
MATH = RowFormat(tasks.math_problem, ("problem",), ("HuggingFaceH4/MATH-500", None, "test"))
AIME24 = RowFormat(tasks.aime, (), ("HuggingFaceH4/aime_2024", None, "train"))
AIME25 = RowFormat(tasks.aime, (), ("math-ai/aime25", None, "test"))
AMC23 = RowFormat(tasks.amc23, (), ("math-ai/amc23", None, "test"))
HOTPOTQA = RowFormat(tasks.hotpotqa, ("question",), ("hotpotqa/hotpot_qa", "distractor", "validation"))
MULTIHOP = RowFormat(tasks.multihop, ("question",), (_FLASHRAG, "2wikimultihopqa", "dev"))
MUSIQUE = RowFormat(tasks.musique, ("question",), (_FLASHRAG, "musique", "dev"))
BAMBOOGLE = RowFormat(tasks.bamboogle, (), (_FLASHRAG, "bamboogle", "test"))
AUTOTRAJ = RowFormat(tasks.autotraj, ("question",))
HLE = RowFormat(tasks.hle, ("question", "answer"), ("cais/hle", None, "test"))
