"""LoRA adapters from disk into a model's weights in one pass, and out again bit for bit."""

__version__ = "0.1.0"
