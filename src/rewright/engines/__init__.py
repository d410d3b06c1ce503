"""Engines: text generation with local transformers models or any OpenAI-compatible server."""
