"""Models behind one coroutine: local transformers, or any OpenAI-compatible server."""
