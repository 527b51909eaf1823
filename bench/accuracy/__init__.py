"""How far fused weights lie from the formulas in extended precision: lora_mmap's, and those of its peers."""
