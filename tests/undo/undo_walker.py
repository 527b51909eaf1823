"""A model taken through a history, and another that says what has to be in the weights after every step."""

import pytest
from adapter_tensors import write
from undo_models import all_bits, every_kind, write_bits

import lora_mmap
from lora_mmap.errors import FusionOverflowError


class Mirror:
    """The same model, composed from its pristine bits every time, with nothing to undo."""

    def __init__(self, dtype, sources):
        self.model, self._sources = every_kind(dtype), sources
        self._pristine = all_bits(self.model)

    def composed(self, entries):
        write_bits(self.model, self._pristine)
        lora_mmap.compose(self.model, [(self._sources[index], strength) for index, strength in entries], restore="none")
        return self.model


class Walker:
    """Takes the steps of a history on a model."""

    def __init__(self, model, arguments, sources, overflowing=None):
        """``arguments`` are those of ``compose`` beside the list; ``overflowing`` is what makes it fail."""
        self.model, self._arguments = model, arguments
        self._sources, self._overflowing = sources, overflowing
        self.tiers = set()  # that some report named

    def take(self, step):
        if step.kind == "multiply":
            lora_mmap.set_lora_strength_v2(self.model, step.argument)
        elif step.kind == "take out":
            lora_mmap.reset(self.model, adapters=[self._sources[step.argument]])
        elif step.kind == "reset":
            lora_mmap.reset(self.model)
        elif step.kind == "fail":
            with pytest.raises(FusionOverflowError):
                self._compose([*self._entries(step.argument), (self._overflowing, 1.0)])
        else:
            self._compose(self._entries(step.argument))

    def _compose(self, entries):
        report = lora_mmap.compose(self.model, entries, **self._arguments)
        self.tiers |= report.restore.keys()

    def _entries(self, entries):
        return [(self._sources[index], strength) for index, strength in entries]


def open_sources(adapters, folder):
    """Every other adapter from a file, the others from dicts."""
    opened = []
    for index, tensors in enumerate(adapters):
        source = tensors if index % 2 else write(folder / f"{index}.safetensors", tensors)
        opened.append(lora_mmap.open_adapter(source))
    return opened
