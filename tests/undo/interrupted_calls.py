"""Run by test_undo_ctrl_c.py: makes calls on one model until an interrupt arrives, then says what it left behind.

Usage: interrupted_calls.py TIER FOLDER TRIALS. Prints ``ready`` when an interrupt may be sent and, once it has arrived,
a line: ``before``, ``after``, or ``wrong`` and what. ``none`` where the trial's calls all ended without one.
"""

import hashlib
import random
import signal
import sys
import time
from pathlib import Path

import torch
from undo_adapters import adapters_for
from undo_models import all_bits, every_kind, write_bits
from undo_tiers import BUILT
from undo_walker import open_sources

import lora_mmap
from lora_mmap import staging

COMPOSITIONS = [(), ((0, 1.0),), ((0, 1.0), (4, 0.5)), ((1, -0.7), (8, 1.0)), ((11, 0.3),), ((5, 1.0), (7, 0.4))]
FACTOR = 0.5  # of the strength changes
GIVE_UP = 2.0  # seconds after which a trial ends without an interrupt


def fingerprint(model):
    digest = hashlib.sha256()
    for bits in all_bits(model).values():
        digest.update(bits.contiguous().numpy().tobytes())
    return digest.hexdigest()


class Interrupted:
    def __init__(self, tier, folder):
        self.model = every_kind(torch.bfloat16)
        self._arguments = tier.arguments(self.model, folder)
        self._sources = open_sources(adapters_for(self.model), folder)
        self._random = random.Random(tier.name)
        self._states = self._all_states()
        self._now = ((), 1.0)
        self.under_way = None

    def _all_states(self):
        """The fingerprint of every state that a call can leave, by composition and factor."""
        mirror, found = every_kind(torch.bfloat16), {}
        pristine = all_bits(mirror)
        for entries in COMPOSITIONS:
            for factor in (1.0, FACTOR) if entries else (1.0,):
                write_bits(mirror, pristine)
                lora_mmap.compose(mirror, self._entries(entries, factor), restore="none")
                found[entries, factor] = fingerprint(mirror)
        assert len(set(found.values())) == len(found)
        return found

    def _entries(self, entries, factor=1.0):
        return [(self._sources[index], strength * factor) for index, strength in entries]

    def call(self):
        """One call that changes the state, drawn at random. Strengths are counted from what was composed at 1."""
        same = (self._now[0], FACTOR if self._now[1] == 1.0 else 1.0)
        targets = [state for state in self._states if state != self._now and (state[1] == 1.0 or state == same)]
        self.under_way = self._random.choice(targets)
        self.go_to(self.under_way)
        self._now, self.under_way = self.under_way, None

    def go_to(self, target):
        entries, factor = target
        if not entries and self._random.random() < 0.5:
            lora_mmap.reset(self.model)
        elif entries and entries == self._now[0]:
            lora_mmap.set_lora_strength_v2(self.model, factor)
        else:
            lora_mmap.compose(self.model, self._entries(entries), **self._arguments)

    def judge(self):
        """What the interrupt left: also whether the model can still be used."""
        before, after = self._states[self._now], self._states[self.under_way or self._now]
        left = fingerprint(self.model)
        if left not in (before, after):
            return f"wrong: a mixture on the way from {self._now} to {self.under_way}"
        self.go_to(self.under_way or self._now)  # again, even where only the caller does not know that it was done
        if fingerprint(self.model) != after:
            return f"wrong: the call from {self._now} to {self.under_way} cannot be repeated"
        lora_mmap.reset(self.model)
        self._now, self.under_way = ((), 1.0), None
        if fingerprint(self.model) != self._states[self._now]:
            return "wrong: the pristine weights are lost"
        return "before" if left == before else "after"


def tell(line):
    print(line, flush=True)


def trial(interrupted):
    try:
        tell("ready")
        end = time.monotonic() + GIVE_UP
        while time.monotonic() < end:
            interrupted.call()
    except KeyboardInterrupt:
        return interrupted.judge()
    return "none"


def main(tier, folder, trials):
    torch.set_num_threads(1)
    staging.WINDOW_NBYTES = 1  # every weight in a window of its own: more places to be interrupted at
    interrupted = Interrupted(next(known for known in BUILT if known.name == tier), Path(folder))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for _ in range(int(trials)):
        tell(trial(interrupted))


if __name__ == "__main__":
    main(*sys.argv[1:])
