"""Calls that fail in the middle, on a model with branches of every kind: all is as it was, and they can be repeated."""

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from fault_stages import Injected, failing
from int8_linears import Int8Linear
from mixed_model import BRANCHES, FACTORS, SHAPES, Mixed, by_module, inputs
from nunchaku_modules import SVDQW4A4Linear
from side_adapters import assert_adds, make
from torch import nn

import lora_mmap
from lora_mmap import staging
from lora_mmap.errors import FusionOverflowError
from lora_mmap.targets import branch_site

X = inputs()
STAGES = ("read", "save", "fuse", "keep", "restore", "commit")
ERRORS = (MemoryError, KeyboardInterrupt, Injected)
FIRST = [(0, 1.0), (1, 0.5)]
SECOND = [(2, -0.7)]


def bits(tensor):
    return tensor.dtype, tuple(tensor.shape), tensor.detach().clone().contiguous().view(torch.uint8).numpy().tobytes()


def snapshot(model):
    """Every tensor, every rank, every class, and what is computed."""
    found = {}
    for name, module in model.named_modules():
        tensors = {**module._parameters, **module._buffers, **vars(module)}
        found[name] = (
            type(module),
            set(vars(module)),
            getattr(module, "rank", None),
            {key: bits(value) for key, value in tensors.items() if torch.is_tensor(value)},
        )
    return found, {name: bits(value) for name, value in model(X).items()}


class Trial:
    """One model over all faults, so that what one leaves behind meets the next."""

    def __init__(self, folder, restore):
        self.model, self._restore = Mixed(), restore
        self.before, self.pristine = self.model(X), snapshot(self.model)
        partly = {name: SHAPES[name] for name in ("packed", "dense")}
        self.adapters = [
            make(folder, SHAPES, 1, rank=5, alpha=10.0),
            make(folder, partly, 2, rank=18, alpha=None, dtype=torch.float16),
            make(folder, {name: SHAPES[name] for name in ("packed", "beside")}, 3, rank=40, alpha=20.0),
        ]

    def compose(self, entries):
        listed = [(self.adapters[index].path, strength) for index, strength in entries]
        lora_mmap.compose(self.model, listed, strict=True, restore=self._restore)

    def assert_has(self, entries):
        listed = [(self.adapters[index], strength) for index, strength in entries]
        assert_adds(self.before, self.model(X), listed, by_module(X), FACTORS)


class Call(NamedTuple):
    """One call on a model that ``before`` is composed into, after which ``after`` is; it passes ``stages``."""

    name: str
    before: list
    after: list
    run: Callable
    stages: tuple


_WRITING = ("read", "save", "fuse", "keep", "commit")
CALLS = [
    Call("compose", [], FIRST, lambda trial: trial.compose(FIRST), _WRITING),
    Call("switch", FIRST, SECOND, lambda trial: trial.compose(SECOND), (*_WRITING, "restore")),
    Call("switch back", SECOND, FIRST, lambda trial: trial.compose(FIRST), _WRITING),
    Call(
        "strength",
        FIRST,
        [(index, -0.5 * strength) for index, strength in FIRST],
        lambda trial: lora_mmap.set_lora_strength_v2(trial.model, -0.5),
        _WRITING,
    ),
    Call("strength 0", FIRST, [], lambda trial: lora_mmap.set_lora_strength_v2(trial.model, 0), ("restore", "commit")),
    Call(
        "partial reset",
        FIRST,
        FIRST[1:],
        lambda trial: lora_mmap.reset(trial.model, adapters=[trial.adapters[0].path]),
        (*_WRITING, "restore"),
    ),
    Call("reset", FIRST, [], lambda trial: lora_mmap.reset(trial.model), ("restore", "commit")),
]


@pytest.mark.parametrize("restore", ["auto", "backup"])
@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.name)
def test_a_fault_at_every_arrival(call, restore, tmp_path, monkeypatch):
    monkeypatch.setattr(staging, "WINDOW_NBYTES", 1)  # faults arrive between modules, too
    monkeypatch.setattr(branch_site, "_AT_ONCE", 1)
    trial = Trial(tmp_path, restore)
    for stage in STAGES:
        arrivals = [fault_until_it_works(trial, call, stage, error) for error in ERRORS]
        assert len(set(arrivals)) == 1
        assert arrivals[0] > 0 or stage not in call.stages, f"nothing came to {stage}"


def fault_until_it_works(trial, call, stage, error):
    """How often the call came to the stage. It is left as it was before the call each time but the last."""
    for arrival in range(1, 100):
        trial.compose(call.before)
        before = snapshot(trial.model)
        try:
            with failing(stage, arrival, error):
                call.run(trial)
        except error:
            assert snapshot(trial.model) == before, (stage, arrival)
            call.run(trial)
            trial.assert_has(call.after)
            lora_mmap.reset(trial.model)
            assert snapshot(trial.model) == trial.pristine
        else:
            trial.assert_has(call.after)
            lora_mmap.reset(trial.model)
            assert snapshot(trial.model) == trial.pristine
            return arrival - 1
    raise AssertionError("a fault that never stops arriving")


class Halves(nn.Module):
    """float16 branches, of both kinds."""

    def __init__(self):
        super().__init__()
        self.packed = SVDQW4A4Linear(64, 80, dtype=torch.float16, seed=1)
        self.beside = Int8Linear(64, 48, dtype=torch.float16, seed=2)

    def forward(self, x):
        return {"packed": self.packed(x), "beside": self.beside(x.half())}


@pytest.fixture
def huge(tmp_path):
    """Files whose factors are finite in float16 only with a small strength, by the module that they are on."""
    return {
        name: make(tmp_path, {name: BRANCHES[name]}, seed, rank=4, alpha=4e5, size=1.0)
        for seed, name in enumerate(("packed", "beside"), 5)
    }


@pytest.mark.parametrize("composed", [False, True], ids=["pristine", "composed"])
@pytest.mark.parametrize("name", ["packed", "beside"])
def test_an_overflow_names_the_module_and_changes_nothing(name, composed, huge, tmp_path):
    model, pristine = Halves(), snapshot(Halves())
    both = {other: BRANCHES[other] for other in huge}
    good, wide = make(tmp_path, both, 1, rank=3, alpha=3.0), make(tmp_path, both, 2, rank=20, alpha=3.0)
    if composed:
        lora_mmap.compose(model, [(good.path, 1.0)], strict=True)
    before = snapshot(model)
    for listed in ([(huge[name].path, 1.0)], [(good.path, 1.0), (wide.path, 1.0), (huge[name].path, 1.0)]):
        with pytest.raises(FusionOverflowError, match=name) as caught:
            lora_mmap.compose(model, listed)
        assert str(huge[name].path) in str(caught.value)
        assert snapshot(model) == before
    lora_mmap.compose(model, [(wide.path, 1.0), (huge[name].path, 1e-4)], strict=True)
    before = snapshot(model)
    with pytest.raises(FusionOverflowError, match=rf"set_lora_strength_v2.*{name}"):
        lora_mmap.set_lora_strength_v2(model, 1e4)
    assert snapshot(model) == before
    lora_mmap.set_lora_strength_v2(model, -1.0)
    assert lora_mmap.reset(model)
    assert snapshot(model) == pristine
