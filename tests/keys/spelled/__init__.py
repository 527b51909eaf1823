"""An independent writer of adapters: real models without their bytes, and files spelled as each trainer spells them.

Knows nothing of lora_mmap's key tables: what a key means is decided here by the model it was spelled from.
"""
