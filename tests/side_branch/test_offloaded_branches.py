"""Branches of modules whose parameters accelerate keeps elsewhere, and of those that are nowhere."""

import pytest
import torch
from mixed_model import BASE_RANK, BRANCHES, FACTORS, Mixed, by_module, inputs
from side_adapters import assert_adds, make

import lora_mmap

accelerate = pytest.importorskip("accelerate")

X = inputs()
CPU = torch.device("cpu")


@pytest.fixture
def adapters(tmp_path):
    return [
        make(tmp_path, BRANCHES, 1, rank=5, alpha=10.0),
        make(tmp_path, BRANCHES, 2, rank=18, alpha=None, dtype=torch.bfloat16),
    ]


def cpu_offload(model, folder):
    accelerate.cpu_offload(model, CPU)


def a_given_state_dict(model, folder):
    accelerate.cpu_offload(model, CPU, state_dict=dict(model.state_dict()))


def with_buffers(model, folder):
    accelerate.cpu_offload(model, CPU, offload_buffers=True)


def in_turn(model, folder):
    """With another hook around accelerate's, as cpu_offload_with_hook and diffusers may add."""
    for module in model.children():
        accelerate.hooks.add_hook_to_module(module, accelerate.hooks.ModelHook())
        accelerate.hooks.attach_align_device_hook(module, CPU, offload=True)


def disk_offload(model, folder):
    accelerate.disk_offload(model, str(folder / "offloaded"), CPU)


def dispatched(model, folder):
    places = {"packed": "disk", "modulated": "cpu", "beside": "disk", "dense": "cpu"}
    accelerate.dispatch_model(model, places, main_device="cpu", offload_dir=str(folder / "offloaded"))


WAYS = [cpu_offload, a_given_state_dict, with_buffers, in_turn, disk_offload, dispatched]
every_way = pytest.mark.parametrize("offload", WAYS, ids=lambda way: way.__name__)
pytestmark = pytest.mark.filterwarnings("ignore")  # of accelerate, about memory-mapped arrays


def compose(model, entries, **arguments):
    return lora_mmap.compose(model, [(made.path, strength) for made, strength in entries], strict=True, **arguments)


def assert_has(model, before, entries):
    assert_adds(before, model(X), entries, by_module(X), FACTORS)


def hook_of(module):
    hook = module._hf_hook
    return next((one for one in getattr(hook, "hooks", ()) if getattr(one, "offload", False)), hook)


def forms(model):
    """Where everything is, and of which shape; the values where they can be seen."""
    return {
        name: (value.device.type, value.dtype, tuple(value.shape), None if value.is_meta else value.clone())
        for name, value in [*model.named_parameters(), *model.named_buffers()]
    }


def assert_same(found, expected):
    assert list(found) == list(expected)
    for name, (*form, values) in expected.items():
        assert list(found[name][:-1]) == form, name
        assert values is None or torch.equal(found[name][-1], values), name


@every_way
@pytest.mark.parametrize("restore", ["auto", "backup"])
def test_there_and_back(offload, restore, adapters, tmp_path):
    model = Mixed()
    whole = model(X)
    offload(model, tmp_path)
    before, were = model(X), forms(model)
    assert all(torch.equal(value, before[name]) for name, value in whole.items())
    assert model.packed.qweight.is_meta
    maps = {name: hook_of(module).weights_map for name, module in model.named_children() if hook_of(module).offload}
    held = {(name, key): maps[name][key] for name in maps for key, _ in model.get_submodule(name).named_parameters()}
    entries = list(zip(adapters, (1.0, -0.5), strict=True))
    report = compose(model, entries, restore=restore)
    assert {name: (one["target"], one["base_rank"]) for name, one in report.branches.items()} == {
        "packed": ("svdquant", BASE_RANK),
        "modulated": ("awq", 0),
        "beside": ("side_branch", 0),
    }
    assert model.packed.proj_down.is_meta
    assert model.packed.proj_down.shape == (64, model.packed.rank)
    assert model.packed.rank == BASE_RANK + 16 + 32
    assert_has(model, before, entries)
    assert_has(model, before, entries)
    lora_mmap.set_lora_strength_v2(model, -0.5)
    assert_has(model, before, [(made, -0.5 * strength) for made, strength in entries])
    lora_mmap.set_lora_strength_v2(model, 0.0)
    assert_has(model, before, [])
    lora_mmap.reset(model, adapters=[adapters[0].path])
    compose(model, [(adapters[1], 0.25)], restore=restore)
    assert_has(model, before, [(adapters[1], 0.25)])
    assert lora_mmap.reset(model)
    after = model(X)
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert_same(forms(model), were)
    assert model.packed.rank == BASE_RANK
    assert all(hook_of(model.get_submodule(name)).weights_map is values for name, values in maps.items())
    if offload not in (disk_offload, dispatched):
        assert all(maps[name][key] is value for (name, key), value in held.items())


@every_way
def test_composed_before(offload, adapters, tmp_path):
    """What is offloaded has the adapters in it already; they come out all the same."""
    model, entries = Mixed(), [(adapters[0], 1.0)]
    before = model(X)
    compose(model, entries)
    offload(model, tmp_path)
    assert_has(model, before, entries)
    lora_mmap.set_lora_strength_v2(model, 0.5)
    assert_has(model, before, [(adapters[0], 0.5)])
    compose(model, [(adapters[1], 1.0)])
    assert_has(model, before, [(adapters[1], 1.0)])
    assert lora_mmap.reset(model)
    after = model(X)
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert model.packed.proj_down.shape == (64, BASE_RANK)


@pytest.mark.parametrize("offload", WAYS[:3], ids=lambda way: way.__name__)
def test_brought_back_while_composed(offload, adapters, tmp_path):
    """What accelerate brings back when its hooks go is what was composed, and is taken out there."""
    model, plain, entries = Mixed(), Mixed(), [(adapters[0], 1.0)]
    before = model(X)
    offload(model, tmp_path)
    compose(model, entries)
    accelerate.hooks.remove_hook_from_submodules(model)
    assert not model.packed.proj_down.is_meta
    assert_has(model, before, entries)
    lora_mmap.set_lora_strength_v2(model, -1.0)
    assert_has(model, before, [(adapters[0], -1.0)])
    assert lora_mmap.reset(model)
    assert all(torch.equal(value, plain.state_dict()[name]) for name, value in model.state_dict().items())
    after = model(X)
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_an_error_puts_back_what_was_offloaded(adapters):
    model = Mixed()
    cpu_offload(model, None)
    before, were = model(X), forms(model)
    maps = {name: hook_of(module).weights_map for name, module in model.named_children()}
    with (
        lora_mmap.fault_points.armed("commit", 1, OSError("in the middle")),
        pytest.raises(OSError, match="in the middle"),
    ):
        compose(model, [(adapters[0], 1.0)])
    assert_same(forms(model), were)
    after = model(X)
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert all(hook_of(model.get_submodule(name)).weights_map is values for name, values in maps.items())
    assert lora_mmap.reset(model) is False


def test_what_is_nowhere_is_unsupported(adapters):
    """Meta parameters that nobody brings: compose says so and touches nothing, check that it would fit."""
    model = Mixed().to("meta")
    were, classes = forms(model), {name: type(module) for name, module in model.named_modules()}
    dictionaries = {name: list(vars(module)) for name, module in model.named_modules()}
    checked = lora_mmap.check(model, adapters[0].path)
    assert bool(checked) is True
    assert set(checked.branches) == set(BRANCHES)
    report = lora_mmap.compose(model, [(adapters[0].path, 1.0)])
    assert bool(report) is False
    assert report.branches == {}
    text = str(report)
    assert "unsupported" in text
    assert "meta device" in text
    with pytest.raises(lora_mmap.errors.UnmatchedKeysError, match="meta device"):
        compose(model, [(adapters[0], 1.0)])
    assert_same(forms(model), were)
    assert {name: type(module) for name, module in model.named_modules()} == classes
    assert {name: list(vars(module)) for name, module in model.named_modules()} == dictionaries
    assert lora_mmap.reset(model) is False
