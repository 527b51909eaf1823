"""Weights that are no longer what they were fused into: converted, replaced, of another form. Nothing is undone in the
wrong place; ``force`` forgets them and restores the others. Those that only moved: test_undo_followed_weights.py."""

import pytest
import torch
from adapter_tensors import adapter_for, keyed
from torch import nn
from undo_models import all_bits, bits_of
from undo_tiers import every_tier

import lora_mmap
from lora_mmap.errors import ModelError

MODULES = ["first", "second", "conv"]


def convert_and_back(model):
    model.to(torch.bfloat16).to(torch.float32)


def replace(model):
    model.first.weight = nn.Parameter(model.first.weight.detach().clone())


def other_content(model):
    model.first.weight.data = torch.randn_like(model.first.weight)


def other_strides(model):
    model.conv.to(memory_format=torch.channels_last)


def reshaped(model):
    model.first.weight = nn.Parameter(model.first.weight.data.view(23, 37))


def assign(model):
    model.load_state_dict({name: tensor.clone() for name, tensor in model.state_dict().items()}, assign=True)


def emptied(model):
    model.to_empty(device="cpu")
    for parameter in model.parameters():
        parameter.data.fill_(0.25)  # new memory may happen to hold the very bytes that were fused, which would be ours


# What happens to the model, and the weights that adapters are in and that it moves.
MOVES = {
    "half": (lambda model: model.half(), MODULES),
    "double": (lambda model: model.double(), MODULES),
    "there and back": (convert_and_back, MODULES),
    "meta": (lambda model: model.to("meta"), MODULES),
    "to_empty": (emptied, MODULES),
    "assigned": (assign, MODULES),
    "one replaced": (replace, ["first"]),
    "one of other content": (other_content, ["first"]),
    "channels_last": (other_strides, ["conv"]),
    "one deleted": (lambda model: delattr(model, "first"), ["first"]),
}
# Its bytes are where they were; what force makes of them is left open.
RESHAPED = {"another shape": (reshaped, ["first"])}
every_move = pytest.mark.parametrize("move", MOVES.values(), ids=MOVES)


@pytest.fixture
def pristine(small):
    return all_bits(small)


@pytest.fixture
def composed(small, pristine, tmp_path):
    def compose(tier):
        lora_mmap.compose(small, [(keyed(adapter_for(small, MODULES)), 1.0)], **tier.arguments(small, tmp_path))
        return small

    return compose


@pytest.mark.parametrize("move", [*MOVES.values(), *RESHAPED.values()], ids=[*MOVES, *RESHAPED])
@every_tier
def test_refused(composed, tier, move, sha256):
    model = composed(tier)
    move[0](model)
    before = sha256(model)
    for call in (
        lora_mmap.reset,
        lambda model: lora_mmap.compose(model, []),
        lambda model: lora_mmap.set_lora_strength_v2(model, 0.5),
    ):
        with pytest.raises(
            ModelError, match=r"(first|second|conv)\.weight'.*(moved, converted or replaced|somebody else)"
        ):
            call(model)
        assert sha256(model) == before


@every_move
@every_tier
def test_forced(composed, pristine, tier, move, sha256):
    """What is out of reach stays as it is and is the new pristine state; the others are restored."""
    model, (happen, moved) = composed(tier), move
    happen(model)
    now = all_bits(model)
    lora_mmap.reset(model, force=True)
    left = all_bits(model)
    for name in {f"{module}.weight" for module in MODULES} & left.keys():
        expected = now[name] if name.removesuffix(".weight") in moved else pristine[name]
        assert left[name].is_meta or torch.equal(left[name], expected), name
    before = sha256(model)
    assert lora_mmap.reset(model) is False
    if not next(model.parameters()).is_meta:
        assert lora_mmap.compose(model, [(keyed(adapter_for(model, ["second", "point"], seed=2, size=1e-3)), 1.0)])
        assert lora_mmap.reset(model)
    assert sha256(model) == before


@every_tier
def test_where_nothing_moves(composed, pristine, tier):
    """Calls that leave every weight where it is leave the way back open."""
    model = composed(tier)
    model.float().to("cpu").to(torch.float32).eval().requires_grad_(False)
    model.load_state_dict(model.state_dict())
    assert lora_mmap.reset(model)
    assert_bits(model, pristine)


@every_tier
def test_what_was_not_fused_into_may_move(composed, pristine, tier):
    model = composed(tier)
    model.point.half()
    model.first.bias = nn.Parameter(torch.zeros(37))
    assert lora_mmap.set_lora_strength_v2(model, 0.5)
    assert lora_mmap.reset(model)
    for module in MODULES:
        assert torch.equal(bits_of(model.get_submodule(module).weight), pristine[f"{module}.weight"])
    assert model.point.weight.dtype == torch.float16


def assert_bits(model, bits):
    assert [name for name, now in all_bits(model).items() if not torch.equal(now, bits[name])] == []
