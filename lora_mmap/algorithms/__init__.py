"""What a group of tensors is: one algorithm, its rank, its scale and the shape of the matrix it belongs to."""

from .recognised import Form, Recognised, title
from .recognition import recognise

__all__ = ["Form", "Recognised", "recognise", "title"]
