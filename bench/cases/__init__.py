"""The cases, in the order of a whole run."""

from . import load, keys, plan  # noqa: F401, I001
from . import kernel, algorithms, undo, sdxl, switch, quantised, pipelines, pipeline_memory  # noqa: F401
from . import gpu  # noqa: F401
from . import accuracy  # noqa: F401
