"""Models with weights that cannot be fused into: those are named and left alone, the others fused."""

import pytest
import torch
from adapter_tensors import adapter_for, keyed
from torch import nn

import lora_mmap
from lora_mmap.errors import ModelError, UnmatchedKeysError


class Wrapped(torch.Tensor):
    """What quantisation libraries make: a tensor that has a shape and a dtype and no storage of its own."""

    @staticmethod
    def __new__(cls, shape):
        return torch.Tensor._make_wrapper_subclass(cls, shape, dtype=torch.bfloat16)

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.detach.default:
            return cls(args[0].shape)
        raise NotImplementedError(f"{func}")


def weight_of(kind):
    if kind == "wrapper subclass":
        return Wrapped((6, 8))
    if kind == "sparse":
        return torch.eye(6, 8).to_sparse()
    if kind == "uint8":
        return torch.zeros(6, 8, dtype=torch.uint8)
    return torch.zeros(6, 8).to(torch.float8_e4m3fn)


@pytest.mark.parametrize("kind", ["wrapper subclass", "sparse", "uint8", "float8"])
def test_they_are_reported_and_the_rest_is_fused(kind):
    model = nn.Module()
    model.odd, model.plain = nn.Embedding(6, 8), nn.Linear(8, 6, bias=False)
    model.odd.weight = nn.Parameter(weight_of(kind), requires_grad=False)
    odd, before = model.odd.weight, model.plain.weight.detach().clone()
    tensors = {}
    for name in ("odd", "plain"):
        tensors[f"{name}.lora_A.weight"], tensors[f"{name}.lora_B.weight"] = torch.ones(1, 8), torch.ones(6, 1)
    for strength in (1.0, 0.5):
        report = lora_mmap.compose(model, [(tensors, strength)])
        keys = report.to_dict()["keys"]
        assert keys["odd.lora_A.weight"]["outcome"] == "unsupported"
        assert "'odd'" in keys["odd.lora_A.weight"]["reason"]
        assert keys["plain.lora_A.weight"]["outcome"] == "applied"
        torch.testing.assert_close(model.plain.weight.detach(), before + strength)
    assert lora_mmap.reset(model)
    assert torch.equal(model.plain.weight, before)
    assert model.odd.weight is odd


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.float8_e4m3fn, torch.float8_e5m2], ids=str)
def test_eight_bit_weights_are_reported_and_never_fused(small, dtype, sha256):
    data = small.conv.weight.detach().to(dtype)
    small.conv.weight = nn.Parameter(data, requires_grad=False)
    before = sha256(small)
    report = lora_mmap.compose(small, [(keyed(adapter_for(small, ["conv"])), 1.0)])
    entry = report.to_dict()["keys"]["conv.lora_A.weight"]
    assert not report
    assert entry["outcome"] == "unsupported"
    assert str(dtype) in entry["reason"]
    with pytest.raises(UnmatchedKeysError, match="conv"):
        lora_mmap.compose(small, [(keyed(adapter_for(small, ["conv"])), 1.0)], strict=True)
    assert sha256(small) == before


@pytest.mark.parametrize("kind", ["wrapper subclass", "sparse", "uint8", "float8"])
def test_linear_ones_get_a_branch_and_keep_their_weights(kind):
    model = nn.Module()
    model.odd = nn.Linear(8, 6, bias=False)
    model.odd.weight = nn.Parameter(weight_of(kind), requires_grad=False)
    odd = model.odd.weight
    tensors = {"odd.lora_A.weight": torch.ones(1, 8), "odd.lora_B.weight": torch.ones(6, 1)}
    report = lora_mmap.compose(model, [(tensors, 0.5)])
    assert report.to_dict()["modules"]["odd"]["target"] == "side_branch"
    assert model.odd.weight is odd
    assert lora_mmap.reset(model)
    assert type(model.odd) is nn.Linear
    assert model.odd.weight is odd


def test_meta_weights_are_reported(small, sha256):
    pairs = adapter_for(small, ["first", "second"])
    small.second.to("meta")
    report = lora_mmap.compose(small, [(keyed(pairs), 1.0)])
    assert report.applied == 1
    assert report.to_dict()["keys"]["second.lora_B.weight"]["outcome"] == "unsupported"
    assert "meta" in report.to_dict()["keys"]["second.lora_B.weight"]["reason"]
    assert lora_mmap.reset(small)


def test_parametrized_weights_are_reported(small, sha256):
    pairs = adapter_for(small, ["first", "second"])
    nn.utils.parametrizations.weight_norm(small.second)
    before = sha256(small)
    report = lora_mmap.compose(small, [(keyed(pairs), 1.0)])
    assert report.applied == 1
    assert report.to_dict()["keys"]["second.lora_B.weight"]["outcome"] == "unsupported"
    lora_mmap.reset(small)
    assert sha256(small) == before


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_weights_are_refused(small):
    pairs = adapter_for(small, ["first"])
    small.cuda()
    with pytest.raises(ModelError, match=r"\[compose\] weight 'first\.weight' is on cuda"):
        lora_mmap.compose(small, [(keyed(pairs), 1.0)])
