"""aprverify: contract-driven verification and falsification of LLM trainers."""

__version__ = "0.1.0"
