"""TRL trainer back end: SFT, reward model, RL."""

from rewright.engines.vllm_engine import quiet_vllm

quiet_vllm()  # TRL imports vLLM if it is installed
