"""Compiles the CUDA kernels into the images that the extension embeds.

Runs at build time only, with nothing but the standard library: setup.py asks it what to call the wheel and what to
install for the build, CMake has it choose a compiler (``python -m compile_images choose``) and make each image
(``compile``).
"""
