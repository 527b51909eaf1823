"""Whatever goes wrong wherever it goes wrong on a device: every weight as it was, or every weight in the new state."""

import contextlib

import pytest
import torch
from adapter_tensors import write
from base_checkpoints import save_base
from fault_stages import NATIVE, STAGES, Injected, failing
from undo_adapters import adapters_for
from undo_models import every_kind
from undo_walker import Mirror

import lora_mmap
from lora_mmap import device_moves, device_site
from lora_mmap.cuda import device_stream
from lora_mmap.errors import CudaError

OUT_OF_MEMORY = 2
FIRST = [(1, 1.0), (4, 0.7), (8, 1.0)]
SECOND = [(1, 0.5), (7, 1.0), (3, -0.4)]
# What is composed before, the call, what is composed after
CALLS = {
    "compose": ([], lambda trial: trial.compose(FIRST), FIRST),
    "switch": (FIRST, lambda trial: trial.compose(SECOND), SECOND),
    "switch to copies": (FIRST, lambda trial: trial.compose(SECOND, restore="backup"), SECOND),
    "switch to fast": (FIRST, lambda trial: trial.compose(SECOND, numerics="fast"), SECOND),
    "and forget": (FIRST, lambda trial: trial.compose(SECOND, restore="none"), None),
    "take one out": (FIRST, lambda trial: trial.take_out(4), [FIRST[0], FIRST[2]]),
    "strength": (
        FIRST,
        lambda trial: lora_mmap.set_lora_strength_v2(trial.model, -0.5),
        [(i, -0.5 * s) for i, s in FIRST],
    ),
    "reset": (FIRST, lambda trial: lora_mmap.reset(trial.model), []),
}
every_call = pytest.mark.parametrize("call", CALLS)
KINDS = [{}, {"restore": "backup"}, {"numerics": "fast"}, {"restore": "file"}, {"retain": "device"}]
before_what = pytest.mark.parametrize("kind", KINDS, ids=str)


class Trial:
    def __init__(self, folder, torch_side, sha256, kind):
        self._torch_side, self._sha256, self._kind = torch_side, sha256, kind
        if kind.get("restore") == "file":
            base = save_base(every_kind(torch.bfloat16), folder / "base.safetensors")
            self._kind = {**kind, "base": base}
        adapters = adapters_for(every_kind(torch.bfloat16))
        self._sources = [
            lora_mmap.open_adapter(write(folder / f"{index}.safetensors", adapter) if index % 4 == 0 else adapter)
            for index, adapter in enumerate(adapters)
        ]
        self._mirror = Mirror(torch.bfloat16, self._sources)
        self.begin()

    def begin(self):
        """Anew, from pristine weights."""
        self.model = self._torch_side.move(every_kind(torch.bfloat16))

    def compose(self, entries, **kind):
        entries = [(self._sources[index], strength) for index, strength in entries]
        lora_mmap.compose(self.model, entries, **(kind or self._kind))

    def take_out(self, index):
        lora_mmap.reset(self.model, adapters=[self._sources[index]])

    def multiply(self, strength):
        lora_mmap.set_lora_strength_v2(self.model, strength)

    def now(self):
        self._torch_side.synchronize()
        return self._sha256(self.model)

    def expected(self, entries):
        return self._sha256(self._mirror.composed(entries))


@pytest.fixture
def windows(monkeypatch):
    """Every weight in a window of its own, so that faults arrive between weights."""
    monkeypatch.setattr(device_stream, "WINDOW_NBYTES", 1)
    monkeypatch.setattr(device_site, "WINDOW_NBYTES", 1)
    monkeypatch.setattr(device_moves, "WINDOW_NBYTES", 1)


@every_call
@before_what
def test_a_fault_at_every_arrival(call, kind, tmp_path, torch_side, fake_cuda, sha256, windows):
    fake_cuda.mode("lazy")
    trial = Trial(tmp_path, torch_side, sha256, kind)
    first, run, then = CALLS[call]
    states = [trial.expected(entries) for entries in ([], first, SECOND if then is None else then)]
    came = dict.fromkeys((stage for stage in STAGES if stage not in NATIVE), 0)
    for stage in came:
        while fault(lambda: run(trial), trial, first, failing(stage, came[stage] + 1, Injected), Injected):
            came[stage] += 1
            check_usable(trial, states, then is None)
        assert trial.now() == states[2]
    assert came["fuse"] > 3 or call == "reset"
    assert came["restore"] > 0 or call != "reset"


def fault(call, trial, first, fails, error):
    """Whether the call, on a model that ``first`` is composed into, met its fault."""
    trial.begin()
    trial.compose(first)
    with fails:
        try:
            call()
        except error:
            return True
    return False


def check_usable(trial, states, forgets):
    """Before or after; and a reset finds the way back, but for the one that was not wanted."""
    pristine, before, after = states
    now = trial.now()
    assert now in (before, after)
    lora_mmap.reset(trial.model)
    assert trial.now() == (after if forgets and now == after else pristine)


@every_call
def test_every_call_of_the_driver_fails_once(call, tmp_path, torch_side, fake_cuda, sha256):
    trial = Trial(tmp_path, torch_side, sha256, {})
    first, run, then = CALLS[call]
    states = [trial.expected(entries) for entries in ([], first, SECOND if then is None else then)]
    reached = 0
    for function in ("cuLaunchKernel", "cuMemcpyHtoDAsync", "cuMemcpyDtoHAsync", "cuMemHostAlloc", "cuEventRecord"):
        nth = 0
        while True:
            nth += 1
            trial.begin()
            trial.compose(first)
            fake_cuda.fail(nth, function, OUT_OF_MEMORY)
            try:
                run(trial)
            except CudaError:
                failed = True
            else:
                failed = bool(fake_cuda.failed)
            met = bool(fake_cuda.failed)
            fake_cuda.fail(0)
            if not met:
                break
            reached += failed
            check_usable(trial, states, then is None)
    assert reached > 3


@every_call
@pytest.mark.parametrize("kind", [{}, {"retain": "device"}], ids=str)
def test_device_memory_runs_out(call, kind, tmp_path, torch_side, monkeypatch, sha256):
    """At every allocation that the call asks of torch."""
    from lora_mmap.cuda import from_torch

    trial = Trial(tmp_path, torch_side, sha256, kind)
    first, run, then = CALLS[call]
    states = [trial.expected(entries) for entries in ([], first, SECOND if then is None else then)]
    original, left = torch_side.allocate, [0]

    def scarce(shape, dtype, device):
        left[0] -= 1
        if left[0] == 0:
            raise torch.OutOfMemoryError("scarce")
        return original(shape, dtype, device)

    monkeypatch.setattr(from_torch, "allocate", scarce)
    nth = 0
    while left[0] <= 0:
        nth += 1
        trial.begin()
        trial.compose(first)
        left[0] = nth
        with contextlib.suppress(torch.OutOfMemoryError):
            run(trial)
        if left[0] > 0:
            break
        left[0] = 0
        check_usable(trial, states, then is None)
    assert nth > 3
