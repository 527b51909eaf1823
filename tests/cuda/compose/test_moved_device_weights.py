"""Weights that left the device they were fused on: followed once they are back there, at whatever address, and refused
before that. What a pending composition still writes reaches them where they have gone."""

import gc

import pytest
import torch
from base_checkpoints import save_base
from undo_adapters import adapters_for, pairs
from undo_models import all_bits, bits_of, differing, every_kind
from undo_walker import Mirror, open_sources

import lora_mmap
from lora_mmap.errors import FusionOverflowError, ModelError

WHOLE = ["wide", "tall", "conv", "last", "point", "plain"]
TIERS = {
    "auto": {},
    "journal of ranges": {"retain": "file"},
    "backup": {"restore": "backup"},
    "file": {"restore": "file"},
}
every_tier = pytest.mark.parametrize("tier", TIERS)
CALLS = {
    "compose": lambda model, other: lora_mmap.compose(model, [(other, 1.0)]),
    "strength": lambda model, other: lora_mmap.set_lora_strength_v2(model, -0.5),
    "reset": lambda model, other: lora_mmap.reset(model),
}


def arguments_of(tier, folder):
    if tier != "file":
        return TIERS[tier]
    return {**TIERS[tier], "base": save_base(every_kind(torch.bfloat16), folder / "base.safetensors", None)}


@pytest.fixture
def moves(torch_side):
    """What ``model.to`` does to parameters that stay the same objects, with the device's work done before."""

    class Moves:
        def to_device(self, model, index=0):
            torch_side.synchronize()
            for parameter in model.parameters():
                parameter.data = torch_side.copy_of(parameter.data, index)
            torch_side._moved.add(model)
            return model

        def to_host(self, model):
            torch_side.synchronize()
            for parameter in model.parameters():
                parameter.data = parameter.data.clone()
            return model

        def round_trip(self, model):
            return self.to_device(self.to_host(model))

    return Moves()


def is_as(model, expected, torch_side):
    torch_side.synchronize()
    return differing(model, expected) == []


def some(model, seed=1, size=0.01):
    return pairs(model, WHOLE, seed, torch.float16, size)


@every_tier
def test_every_step_after_a_round_trip(tier, tmp_path, moves, torch_side, fake_cuda):
    fake_cuda.mode("random", 5)
    model = moves.to_device(every_kind(torch.bfloat16))
    sources = open_sources(adapters_for(model), tmp_path)
    mirror, arguments = Mirror(torch.bfloat16, sources), arguments_of(tier, tmp_path)
    everything = [(index, 1.0) for index in range(len(sources))]
    lora_mmap.compose(model, [(sources[index], 1.0) for index, _ in everything], **arguments)
    moves.round_trip(model)
    lora_mmap.set_lora_strength_v2(model, 0.5)
    assert is_as(model, mirror.composed([(index, 0.5) for index, _ in everything]), torch_side)
    moves.round_trip(model)
    lora_mmap.compose(model, [(sources[3], 1.0), (sources[4], -0.3), (sources[8], 1.0)], **arguments)
    assert is_as(model, mirror.composed([(3, 1.0), (4, -0.3), (8, 1.0)]), torch_side)
    moves.round_trip(model)
    lora_mmap.reset(model, adapters=[sources[4]])
    assert is_as(model, mirror.composed([(3, 1.0), (8, 1.0)]), torch_side)
    moves.round_trip(model)
    lora_mmap.reset(model)
    assert is_as(model, every_kind(torch.bfloat16), torch_side)


@pytest.mark.parametrize("call", CALLS)
@every_tier
def test_refused_while_it_is_on_the_host(call, tier, tmp_path, moves, torch_side, sha256):
    """Nothing changes, and bringing it back is all it takes."""
    model = moves.to_device(every_kind(torch.bfloat16))
    lora_mmap.compose(model, [(some(model), 1.0)], **arguments_of(tier, tmp_path))
    moves.to_host(model)
    before = sha256(model)
    with pytest.raises(ModelError, match=r"on cuda:0, found it on cpu.*model\.to\('cuda:0'\)"):
        CALLS[call](model, some(model, 2))
    assert sha256(model) == before
    CALLS[call](moves.to_device(model), some(model, 2))
    lora_mmap.reset(model)
    assert is_as(model, every_kind(torch.bfloat16), torch_side)


@pytest.mark.parametrize("call", CALLS)
@every_tier
def test_refused_while_it_is_on_a_device(call, tier, tmp_path, moves, torch_side, sha256):
    model = every_kind(torch.bfloat16)
    lora_mmap.compose(model, [(some(model), 1.0)], **arguments_of(tier, tmp_path))
    moves.to_device(model)
    before = sha256(model)
    with pytest.raises(ModelError, match=r"on cpu, found it on cuda:0.*model\.to\('cpu'\)"):
        CALLS[call](model, some(model, 2))
    torch_side.synchronize()
    assert sha256(model) == before
    CALLS[call](moves.to_host(model), some(model, 2))
    lora_mmap.reset(model)
    assert is_as(model, every_kind(torch.bfloat16), torch_side)


def test_refused_on_another_device(moves, torch_side):
    model = moves.to_device(every_kind(torch.bfloat16))
    lora_mmap.compose(model, [(some(model), 1.0)])
    moves.to_device(model, 1)
    with pytest.raises(ModelError, match=r"on cuda:0, found it on cuda:1"):
        lora_mmap.reset(model)
    lora_mmap.reset(moves.to_device(model, 0))
    assert is_as(model, every_kind(torch.bfloat16), torch_side)


def test_forced_where_it_is_elsewhere(moves, sha256):
    model = moves.to_device(every_kind(torch.bfloat16))
    lora_mmap.compose(model, [(some(model), 1.0)])
    before = sha256(moves.to_host(model))
    assert lora_mmap.reset(model, force=True)
    assert sha256(model) == before
    assert lora_mmap.reset(model) is False


@pytest.mark.parametrize("force", [False, True])
def test_fast_arithmetic_has_no_hashes(force, moves, torch_side, sha256):
    """Nothing tells what is in a weight that moved."""
    model = moves.to_device(every_kind(torch.float32))
    lora_mmap.compose(model, [(some(model), 1.0)], numerics="fast")
    moves.round_trip(model)
    before = sha256(model)
    if force:
        assert lora_mmap.reset(model, force=True)
    else:
        with pytest.raises(ModelError, match=r"nothing tells whether its bytes are the same"):
            lora_mmap.reset(model)
    torch_side.synchronize()
    assert sha256(model) == before


def test_a_copy_goes_along(moves, torch_side):
    """Fast arithmetic takes over the copy that was made where the weight was before."""
    model = moves.to_device(every_kind(torch.bfloat16))
    lora_mmap.compose(model, [(some(model), 1.0)], restore="backup")
    moves.round_trip(model)
    lora_mmap.compose(model, [(some(model, 2), 1.0)], restore="backup", numerics="fast")
    lora_mmap.reset(model)
    assert is_as(model, every_kind(torch.bfloat16), torch_side)


def test_device_memory_is_given_back(moves, torch_side):
    """Offloading frees what the weights took; what undoes them stays."""
    model = moves.to_device(every_kind(torch.bfloat16))
    empty = torch_side.held[0] - sum(parameter.nbytes for parameter in model.parameters())
    report = lora_mmap.compose(model, [(some(model), 1.0)])
    moves.to_host(model)
    gc.collect()
    records = torch_side.held[0] - empty
    assert 0 < records <= report.memory["restore"] * 1.1
    lora_mmap.reset(moves.to_device(model))
    gc.collect()
    assert is_as(model, every_kind(torch.bfloat16), torch_side)


@pytest.mark.parametrize("restore", ["auto", "backup"])
@pytest.mark.parametrize("call", CALLS)
def test_moved_and_written_to(call, restore, moves, torch_side, sha256):
    model = moves.to_device(every_kind(torch.float16))
    lora_mmap.compose(model, [(some(model), 1.0)], restore=restore)
    moves.round_trip(model)
    bits_of(model.wide.weight.data)[52, 1099] ^= 1
    before = all_bits(model)
    with pytest.raises(ModelError, match="somebody else"):
        CALLS[call](model, some(model, 2))
    torch_side.synchronize()
    assert [name for name, bits in all_bits(model).items() if not torch.equal(bits, before[name])] == []
    bits_of(model.wide.weight.data)[52, 1099] ^= 1
    CALLS[call](model, some(model, 2))
    lora_mmap.reset(model)
    assert is_as(model, every_kind(torch.float16), torch_side)


@pytest.mark.parametrize("force", ["ours", "written to"])
def test_forced_after_a_round_trip(force, moves, torch_side):
    """What holds what was fused is undone, what does not is left alone."""
    model, expected = moves.to_device(every_kind(torch.float32)), every_kind(torch.float32)
    lora_mmap.compose(model, [(some(model), 1.0)])
    moves.round_trip(model)
    if force == "written to":
        model.plain.weight.data.fill_(3.0)
        expected.plain.weight.data.fill_(3.0)
    assert lora_mmap.reset(model, force=True)
    assert is_as(model, expected, torch_side)


@pytest.mark.parametrize("where", ["to_host", "round_trip"])
def test_moved_while_it_is_pending(where, moves, torch_side, fake_cuda):
    fake_cuda.mode("lazy")
    model = moves.to_device(every_kind(torch.bfloat16))
    mirror = Mirror(torch.bfloat16, [lora_mmap.open_adapter(some(model)), lora_mmap.open_adapter(some(model, 2))])
    lora_mmap.compose(model, [(some(model), 1.0)])
    report = lora_mmap.compose(model, [(some(model, 2), 1.0)], non_blocking=True)
    getattr(moves, where)(model)
    assert report.wait()
    assert is_as(model, mirror.composed([(1, 1.0)]), torch_side)
    if where == "to_host":
        moves.to_device(model)
    lora_mmap.reset(model)
    assert is_as(model, every_kind(torch.bfloat16), torch_side)


@pytest.mark.parametrize("before", ["pristine", "composed"])
@pytest.mark.parametrize("where", ["to_host", "round_trip"])
def test_moved_while_an_overflow_is_pending(where, before, moves, torch_side, fake_cuda):
    """What was moved is what must not be there: it is taken back where it has gone, of the CPU's weights too."""
    fake_cuda.mode("lazy")
    model = every_kind(torch.bfloat16)
    sources = [lora_mmap.open_adapter(some(model))]
    mirror, adapters = Mirror(torch.bfloat16, sources), [(0, 1.0)] if before == "composed" else []
    at_home = model.tall
    del model.tall, model.tied
    moves.to_device(model)
    model.tall = model.tied = at_home
    mirror.model.tied = mirror.model.tall
    if adapters:
        lora_mmap.compose(model, [(sources[0], 1.0)])
    hopeless = some(model, 2)
    hopeless["plain.lora_A.weight"] = torch.full((1, 40), 3e30)
    hopeless["plain.lora_B.weight"] = torch.full((30, 1), 3e30)
    report = lora_mmap.compose(model, [(hopeless, 1.0)], non_blocking=True)
    kept = at_home.weight.data
    getattr(moves, where)(model)
    at_home.weight.data = kept.clone()
    with pytest.raises(FusionOverflowError, match=r"'plain\.weight'"):
        report.wait()
    assert is_as(model, mirror.composed(adapters), torch_side)
    if where == "to_host":
        moves.to_device(model)
        at_home.weight.data = at_home.weight.data.clone()
    lora_mmap.compose(model, [(sources[0], 0.5)])
    assert is_as(model, mirror.composed([(0, 0.5)]), torch_side)
    lora_mmap.reset(model)
    assert is_as(model, every_kind(torch.bfloat16), torch_side)


@pytest.mark.parametrize("where", ["to_host", "round_trip"])
def test_moved_before_what_found_no_room_was_done_again(where, moves, torch_side, fake_cuda):
    fake_cuda.mode("lazy")
    model = moves.to_device(every_kind(torch.bfloat16))
    tensors = pairs(model, ["wide"], 1, torch.float16, 0.001) | pairs(model, ["tall"], 2, torch.float16, 30.0)
    report = lora_mmap.compose(model, [(tensors, 1.0)], non_blocking=True)
    getattr(moves, where)(model)
    assert report.wait().tiers["tall"]["tier"] == "backup"
    mirror = Mirror(torch.bfloat16, [lora_mmap.open_adapter(tensors)])
    assert is_as(model, mirror.composed([(0, 1.0)]), torch_side)
    if where == "to_host":
        moves.to_device(model)
    lora_mmap.reset(model)
    assert is_as(model, every_kind(torch.bfloat16), torch_side)
