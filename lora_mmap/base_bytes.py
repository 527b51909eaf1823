"""The bytes of weights in a base checkpoint: compared, read, written into the weights again."""

from __future__ import annotations

from .base_checkpoint import BaseTensor
from .geometry import Geometry
from .lowering.jobs import Place

_Bytes = tuple[BaseTensor, Place, Geometry]
