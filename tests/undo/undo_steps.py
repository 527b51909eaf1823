"""Weights, records and the tuples of _C.step for them."""

from fusion_reference import NAMES

from lora_mmap import _C


def record_of(weight, corrections=True):
    return _C.Record(*weight.shape, NAMES[weight.dtype], corrections)


def layer(terms, record, values=None):
    """Terms and their record; ``values``: pristine ones of old terms, the base of new ones."""
    place = (0, 0, 0) if values is None else (values.data_ptr(), *values.stride())
    return ([term.as_tuple() for term in terms], record, *place)


def step(weight, old=None, new=None, out=None):
    target = None if out is None else (out.data_ptr(), *out.stride())
    return (weight.data_ptr(), *weight.shape, *weight.stride(), NAMES[weight.dtype], old, new, target)
