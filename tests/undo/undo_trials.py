"""Calls that are put through faults, on models whose weights are known before and after."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from adapter_tensors import write
from fault_stages import failing
from undo_adapters import adapters_for
from undo_histories import HAS_PARTIAL_RESETS
from undo_models import all_bits, every_kind, write_bits

import lora_mmap

NOTHING = []
FIRST = [(1, 1.0), (4, 0.7), (8, 1.0)]
SECOND = [(1, 0.5), (7, 1.0), (3, -0.4)]


@dataclass(frozen=True)
class Call:
    """One call on a model that ``before`` is composed into; ``after`` is what has to be composed then."""

    name: str
    before: list
    after: list
    run: Callable
    stages: tuple[str, ...]  # that it passes at least once


_WRITING = ("recall", "read", "save", "lower", "fuse", "keep", "commit", "tile")
CALLS = [
    Call("compose", NOTHING, FIRST, lambda trial: trial.compose(FIRST), _WRITING),
    Call("switch", FIRST, SECOND, lambda trial: trial.compose(SECOND), _WRITING),
    Call("take one out", FIRST, FIRST[1:], lambda trial: trial.compose(FIRST[1:]), _WRITING),
    Call("compose nothing", FIRST, NOTHING, lambda trial: trial.compose(NOTHING), ("commit", "restore")),
    Call(
        "strength",
        FIRST,
        [(index, -0.5 * strength) for index, strength in FIRST],
        lambda trial: lora_mmap.set_lora_strength_v2(trial.model, -0.5),
        _WRITING,
    ),
    Call(
        "strength 0",
        FIRST,
        NOTHING,
        lambda trial: lora_mmap.set_lora_strength_v2(trial.model, 0.0),
        ("commit", "restore"),
    ),
    Call("reset", FIRST, NOTHING, lambda trial: lora_mmap.reset(trial.model), ("restore",)),
]
if HAS_PARTIAL_RESETS:
    CALLS.append(Call("partial reset", FIRST, FIRST[::2], lambda trial: trial.take_out(FIRST[1][0]), _WRITING))


class Trial:
    """One model over all faults, so that what one fault leaves behind meets the next."""

    def __init__(self, tier, folder, sha256):
        self.model, self._sha256 = every_kind(torch.bfloat16), sha256
        self._arguments = tier.arguments(self.model, folder)
        adapters = adapters_for(self.model)
        self._sources = [
            lora_mmap.open_adapter(write(folder / f"{index}.safetensors", adapter) if index % 4 == 0 else adapter)
            for index, adapter in enumerate(adapters)
        ]
        self._mirror, self._pristine = every_kind(torch.bfloat16), all_bits(self.model)

    def compose(self, entries):
        lora_mmap.compose(self.model, self._entries(entries), **self._arguments)

    def take_out(self, index):
        lora_mmap.reset(self.model, adapters=[self._sources[index]])

    def now(self):
        return self._sha256(self.model)

    def expected(self, entries):
        """The fingerprint of ``entries`` composed into pristine weights."""
        write_bits(self._mirror, self._pristine)
        lora_mmap.compose(self._mirror, self._entries(entries), restore="none")
        return self._sha256(self._mirror)

    def _entries(self, entries):
        return [(self._sources[index], strength) for index, strength in entries]


def fails(trial, call, stage, arrival, error):
    """Whether the call met its fault; any other error is the test's."""
    try:
        with failing(stage, arrival, error):
            call.run(trial)
    except error:
        return True
    return False


def check_usable(trial, call, pristine, after):
    """The same call again does what it says, unless it had been done, and a reset finds the way back."""
    if call.name != "reset" and trial.now() != after:
        call.run(trial)
        assert trial.now() == after
    lora_mmap.reset(trial.model)
    assert trial.now() == pristine
    assert lora_mmap.reset(trial.model) is False
