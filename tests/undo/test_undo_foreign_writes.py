"""Somebody else writes to a weight that has adapters in it: nothing is undone on top of it unless forced."""

import copy

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from undo_adapters import adapters_for
from undo_models import all_bits, bits_of, every_kind
from undo_tiers import BUILT, every_tier

import lora_mmap
from lora_mmap.errors import ModelError

ENTRIES = [(0, 1.0), (8, 0.7)]
COMPOSED = ["wide", "tall", "conv", "last", "point", "table", "plain"]
copies = pytest.mark.parametrize(
    "tier", [tier for tier in BUILT if tier.restore == "backup"], ids=lambda tier: tier.name
)


@pytest.fixture
def adapters():
    return [lora_mmap.open_adapter(tensors) for tensors in adapters_for(every_kind(torch.bfloat16))]


@pytest.fixture(params=[torch.float16, torch.bfloat16, torch.float32], ids=str)
def pristine(request):
    return every_kind(request.param)


@pytest.fixture
def model(pristine, adapters, tier, tmp_path):
    found = copy.deepcopy(pristine)
    found.last.to(memory_format=torch.channels_last)
    report = lora_mmap.compose(found, entries(adapters), **tier.arguments(found, tmp_path))
    assert set(COMPOSED) <= set(report.to_dict()["modules"])
    return found


def entries(adapters):
    return [(adapters[index], strength) for index, strength in ENTRIES]


def flip_lowest_bit(weight, index):
    bits_of(weight.data)[index] ^= 1


def places_in(weight):
    """The first element, the last, and some between: at the borders of tiles of 24 rows and 512 columns too."""
    ends = [sorted({0, size // 2, size - 1, *(at for at in (23, 24, 511, 512) if at < size)}) for size in weight.shape]
    first, last = tuple(0 for _ in ends), tuple(size - 1 for size in weight.shape)
    middle = tuple(end[len(end) // 2] for end in ends)
    edges = [(row, *last[1:]) for row in ends[0]] + [(*first[:-1], col) for col in ends[-1]]
    return list(dict.fromkeys([first, last, middle, *edges]))


def refused(call, model, module):
    """``call`` raises ModelError that names the module's weight, and changes no weight."""
    before = all_bits(model)
    with pytest.raises(ModelError, match=rf"'{module}\.weight'.*row \d+.*column \d+") as error:
        call(model)
    assert_bits(model, before)
    return str(error.value)


def assert_bits(model, expected):
    assert [name for name, bits in all_bits(model).items() if not torch.equal(bits, expected[name])] == []


@every_tier
@pytest.mark.parametrize("module", COMPOSED)
def test_one_bit_anywhere(model, pristine, tier, module):
    """A single element is enough, wherever it lies and however little it changed: the first is a NaN, whose payload
    changes. Taken back, all is well."""
    weight = model.get_submodule(module).weight
    for index in places_in(weight):
        version = weight._version
        flip_lowest_bit(weight, index)
        assert weight._version == version, "a write that torch itself can tell of proves less"
        assert "[reset]" in refused(lora_mmap.reset, model, module)
        flip_lowest_bit(weight, index)
    assert lora_mmap.reset(model)
    assert_bits(model, all_bits(pristine))


@every_tier
@pytest.mark.parametrize("module", ["wide", "last", "plain"])
def test_no_call_writes_over_it(model, pristine, adapters, tier, tmp_path, module):
    arguments = tier.arguments(pristine, tmp_path)
    weight = model.get_submodule(module).weight
    last = tuple(size - 1 for size in weight.shape)
    calls = {
        "[reset]": lora_mmap.reset,
        "[compose]": lambda model: lora_mmap.compose(model, [(adapters[1], 1.0), (adapters[2], 0.5)], **arguments),
        "[set_lora_strength_v2]": lambda model: lora_mmap.set_lora_strength_v2(model, 0.5),
    }
    flip_lowest_bit(weight, last)
    for name, call in calls.items():
        assert name in refused(call, model, module)
    refused(lambda model: lora_mmap.compose(model, []), model, module)
    refused(lambda model: lora_mmap.set_lora_strength_v2(model, 0.0), model, module)
    flip_lowest_bit(weight, last)
    for call in calls.values():
        call(model)
    lora_mmap.reset(model)
    assert_bits(model, all_bits(pristine))


@every_tier
def test_the_sign_of_a_zero(tier, tmp_path):
    """0 and -0 are equal and are other bytes."""
    model = nn.Sequential(nn.Linear(4, 3, bias=False))
    model[0].weight.data[1] = 0
    pair = {"0.lora_A.weight": torch.ones(1, 4), "0.lora_B.weight": torch.tensor([[1.0], [0.0], [1.0]])}
    lora_mmap.compose(model, [(pair, 1.0)], **tier.arguments(model, tmp_path))
    assert model[0].weight[1, 2] == 0
    model[0].weight.data[1, 2] = -0.0
    refused(lora_mmap.reset, model, "0")


@every_tier
def test_forced(model, pristine, tier):
    """Every element that nobody else wrote to is pristine again; the model can be used as before."""
    weight = model.wide.weight
    written = [(0, 0), (52, 1099), (24, 512)]
    for index in written:
        flip_lowest_bit(weight, index)
    refused(lora_mmap.reset, model, "wide")
    assert lora_mmap.reset(model, force=True)
    expected, left = all_bits(pristine), all_bits(model)
    for index in written:
        expected["wide.weight"][index] = left["wide.weight"][index]
    assert_bits(model, expected)
    assert lora_mmap.reset(model) is False


@copies
def test_forced_with_copies_brings_everything_back(model, pristine, tier):
    """Only copies are sure to have what was overwritten."""
    model.wide.weight.data.fill_(7)
    assert lora_mmap.reset(model, force=True)
    assert_bits(model, all_bits(pristine))


@every_tier
def test_another_base_loaded(model, pristine, adapters, tier, tmp_path):
    """load_state_dict into a composed model: refused, and after force the loaded weights are what is there."""
    other = {name: tensor + tensor.new_tensor(0.5) for name, tensor in pristine.state_dict().items()}
    save_file({name: tensor.clone().contiguous() for name, tensor in other.items()}, tmp_path / "other.safetensors")
    model.load_state_dict(load_file(tmp_path / "other.safetensors"))
    refused(lora_mmap.reset, model, r"\w+")
    refused(lambda model: lora_mmap.compose(model, entries(adapters)), model, r"\w+")


@every_tier
def test_its_own_weights_loaded(model, pristine, tier):
    """What a composed model saved is what is in it: nothing is foreign."""
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    lora_mmap.set_lora_strength_v2(model, 0.5)
    lora_mmap.set_lora_strength_v2(model, 1.0)
    model.load_state_dict(state)
    assert lora_mmap.reset(model)
    assert_bits(model, all_bits(pristine))


@every_tier
def test_what_no_adapter_touched_may_be_written_to(model, pristine, tier):
    model.norm.weight.data.fill_(3)
    model.wide.bias.data.fill_(4)
    assert lora_mmap.set_lora_strength_v2(model, 0.3)
    assert lora_mmap.reset(model)
    expected = all_bits(pristine)
    expected["norm.weight"], expected["wide.bias"] = all_bits(model)["norm.weight"], all_bits(model)["wide.bias"]
    assert_bits(model, expected)
    assert model.norm.weight.eq(3).all()
    assert model.wide.bias.eq(4).all()


@every_tier
def test_rows_that_no_adapter_covers_are_left_alone(tier, tmp_path, adapters):
    """A third of a fused projection has adapters: others may write to the rest, and it stays written."""
    model = every_kind(torch.float16)
    expected = all_bits(model)
    weight = model.transformer_blocks[0].attn.to_qkv.weight
    lora_mmap.compose(model, [(adapters[4], 1.0)], **tier.arguments(model, tmp_path))
    bits_of(weight.data)[:20] = 11
    expected["transformer_blocks.0.attn.to_qkv.weight"][:20] = 11
    assert lora_mmap.reset(model)
    assert_bits(model, expected)
