"""What composing means: pristine + the sum of all terms, in order, rounded once."""

import copy

import pytest
import torch
from adapter_tensors import adapter_for, factors, keyed, write
from numerics_bound import assert_one_rounding
from torch import nn

import lora_mmap

LINEARS = ["first", "second"]
ALL = [*LINEARS, "conv", "point"]


def weights_equal(model, other):
    return {n for n, p in model.named_parameters() if not torch.equal(p, other.get_parameter(n))} == set()


def assert_terms(model, pristine, terms):
    """Every weight in ``terms`` within the bound and changed, all other parameters untouched."""
    for name, parameter in model.named_parameters():
        original = pristine.get_parameter(name)
        if name in terms:
            assert not torch.equal(parameter, original), name
            assert_one_rounding(parameter, original, terms[name], name)
        else:
            assert torch.equal(parameter, original), name


@pytest.mark.parametrize("weights", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_every_weight_and_factor_dtype(small, tmp_path, weights, stored, sha256):
    model = small.to(weights)
    pristine = copy.deepcopy(model)
    before = sha256(model)
    pairs = adapter_for(model, ALL, dtype=stored)
    path = write(tmp_path / "a.safetensors", keyed(pairs, alpha=6))
    report = lora_mmap.compose(model, [(path, 0.5)], strict=True)
    assert report.applied == 4
    assert_terms(model, pristine, {f"{m}.weight": [(*pair, 0.5 * 6 / 4)] for m, pair in pairs.items()})
    assert lora_mmap.reset(model) is True
    assert sha256(model) == before


def test_several_adapters_sum_with_one_rounding(small, tmp_path):
    model = small.to(torch.bfloat16)
    pristine = copy.deepcopy(model)
    first, second = adapter_for(model, ALL, 3, seed=1), adapter_for(model, ["second", "conv"], 7, seed=2)
    entries = [
        (write(tmp_path / "1.safetensors", keyed(first)), 0.7),
        (write(tmp_path / "2.safetensors", keyed(second, alpha=2)), -1.3),
    ]
    lora_mmap.compose(model, entries)
    terms = {f"{m}.weight": [(*pair, 0.7)] for m, pair in first.items()}
    for module, pair in second.items():
        terms[f"{module}.weight"].append((*pair, -1.3 * 2 / 7))
    assert_terms(model, pristine, terms)


def fused_sequentially(weight, terms):
    """The contract to the letter, in numpy: fma in rank order by way of float64 and one rounding each.

    float32 products are exact in float64; adding a float32 there and rounding to float32 can differ from a true fma
    only in double rounding, so tests choose values with few bits, where it cannot.
    """
    acc = torch.zeros_like(weight, dtype=torch.float32)
    for down, up, scale in terms:
        for r in range(down.shape[0]):
            b = up[:, r].float() * torch.tensor(scale, dtype=torch.float32)
            acc = (b.double()[:, None] * down[r].double()[None, :] + acc.double()).float()
    return (weight.float() + acc).to(weight.dtype)


def test_the_order_of_adapters_is_the_order_of_the_sum():
    """1 and 2^-24 in this order round differently than the other way round: both orders are kept to the bit."""
    layer = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(layer.weight)
    model = nn.Sequential(layer)
    big, tiny = torch.ones(1, 1), torch.full((1, 1), 2.0**-24)
    entries = {
        name: {"0.lora_A.weight": torch.ones(1, 1), "0.lora_B.weight": b} for name, b in (("big", big), ("tiny", tiny))
    }
    lora_mmap.compose(model, [(entries["big"], 1.0), (entries["tiny"], 1.0), (entries["tiny"], 1.0)])
    assert layer.weight.item() == 1.0
    lora_mmap.compose(model, [(entries["tiny"], 1.0), (entries["tiny"], 1.0), (entries["big"], 1.0)])
    assert layer.weight.item() == 1.0 + 2.0**-23


def test_bit_equal_to_sequential_fma(small):
    """Few-bit factors make every step exact in float64, so the emulated fma is the true one."""
    generator = torch.Generator().manual_seed(4)
    model = small.to(torch.bfloat16)
    pristine = copy.deepcopy(model)
    shape = model.first.weight.shape
    terms, entries = [], []
    for rank, strength in ((5, 0.5), (3, -2.0)):
        down = torch.randint(-127, 127, (rank, shape[1]), generator=generator) / 256
        up = torch.randint(-127, 127, (shape[0], rank), generator=generator) / 1024
        terms.append((down, up, strength))
        entries.append((keyed({"first": (down, up)}), strength))
    lora_mmap.compose(model, entries)
    assert torch.equal(model.first.weight, fused_sequentially(pristine.first.weight.detach(), terms))


@pytest.mark.parametrize("source", ["path", "dict", "adapter"])
def test_the_same_adapter_twice_sums_and_is_read_once(small, tmp_path, source):
    pristine = copy.deepcopy(small)
    pairs = adapter_for(small, LINEARS)
    path = write(tmp_path / "a.safetensors", keyed(pairs))
    with lora_mmap.open_adapter(path) as adapter:
        entry = {"path": path, "dict": keyed(pairs), "adapter": adapter}[source]
        report = lora_mmap.compose(small, [(entry, 0.5), (entry, 0.25)])
    terms = {f"{m}.weight": [(*pair, 0.5), (*pair, 0.25)] for m, pair in pairs.items()}
    assert_terms(small, pristine, terms)
    assert report.files_opened == (1 if source == "path" else 0)
    if source == "path":
        assert report.bytes_read <= path.stat().st_size
        assert report.keys_classified == 4


@pytest.mark.parametrize("alias", ["relative", "symlink", "folder", "hardlink"])
def test_one_file_under_two_names_is_read_once(small, tmp_path, monkeypatch, alias):
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / "adapter_model.safetensors", keyed(adapter_for(small, LINEARS)))
    other = {"relative": "./adapter_model.safetensors", "symlink": tmp_path / "link.safetensors", "folder": tmp_path}
    if alias == "symlink":
        other[alias].symlink_to(path)
    if alias == "hardlink":
        other[alias] = tmp_path / "hard.safetensors"
        other[alias].hardlink_to(path)
    report = lora_mmap.compose(small, [(path, 0.5), (other[alias], 0.25)])
    assert report.files_opened == 1
    assert report.bytes_read <= path.stat().st_size


@pytest.mark.parametrize("strength", [0, 0.0, -0.0, 1e-6, -9.9e-6])
def test_negligible_strengths_are_skipped_unread(small, tmp_path, strength, sha256):
    before = sha256(small)
    report = lora_mmap.compose(small, [(tmp_path / "does not exist.safetensors", strength)])
    assert not report
    assert sha256(small) == before


def test_strengths_at_the_limit_are_applied(small):
    pairs = adapter_for(small, LINEARS, size=10.0)
    assert lora_mmap.compose(small, [(keyed(pairs), 1e-5)])
    assert lora_mmap.compose(small, [(keyed(pairs), -1e-5)])


def test_negative_strength_is_the_opposite_sign(small):
    pristine = copy.deepcopy(small)
    pairs = adapter_for(small, LINEARS)
    lora_mmap.compose(small, [(keyed(pairs), -2.0)])
    assert_terms(small, pristine, {f"{m}.weight": [(*pair, -2.0)] for m, pair in pairs.items()})


def test_composing_replaces_and_restores_what_only_the_first_touched(small):
    model, fresh, pristine = small.to(torch.float16), None, copy.deepcopy(small)
    fresh = copy.deepcopy(model)
    one, two = adapter_for(model, ["first", "conv"], seed=1), adapter_for(model, ["conv", "second"], seed=2)
    lora_mmap.compose(model, [(keyed(one), 1.0)])
    lora_mmap.compose(model, [(keyed(two), 1.0)])
    lora_mmap.compose(fresh, [(keyed(two), 1.0)])
    assert weights_equal(model, fresh)
    assert torch.equal(model.first.weight, pristine.first.weight)
    lora_mmap.reset(model)
    assert weights_equal(model, pristine)


def test_a_thousand_changes_do_not_drift(small, sha256):
    model = small.to(torch.float16)
    before = sha256(model)
    sources = [lora_mmap.open_adapter(keyed(adapter_for(model, LINEARS, seed=i))) for i in range(3)]
    for step in range(200):
        lora_mmap.compose(model, [(sources[step % 3], 0.1 * (step % 7) - 0.3)])
    lora_mmap.reset(model)
    assert sha256(model) == before


def test_composing_nothing_takes_out_what_was_there(small, sha256):
    before = sha256(small)
    lora_mmap.compose(small, [(keyed(adapter_for(small, ALL)), 1.0)])
    report = lora_mmap.compose(small, [])
    assert not report
    assert sha256(small) == before
    assert lora_mmap.reset(small) is False


def test_restore_none_commits(small, sha256):
    pristine = copy.deepcopy(small)
    pair, other = adapter_for(small, ["first"], seed=1), adapter_for(small, ["first"], seed=2)
    report = lora_mmap.compose(small, [(keyed(pair), 1.0)], restore="none")
    assert report.to_dict()["restore"] == {}
    committed, midway = sha256(small), copy.deepcopy(small)
    assert_terms(small, pristine, {"first.weight": [(*pair["first"], 1.0)]})
    assert lora_mmap.reset(small) is False
    assert lora_mmap.set_lora_strength_v2(small, 0.0) is None
    assert sha256(small) == committed
    lora_mmap.compose(small, [(keyed(other), 1.0)])
    assert_terms(small, midway, {"first.weight": [(*other["first"], 1.0)]})
    assert lora_mmap.reset(small) is True
    assert sha256(small) == committed


def test_restore_none_replaces_the_composition_before_it(small):
    fresh = copy.deepcopy(small)
    one, two = keyed(adapter_for(small, ["first", "conv"], seed=1)), keyed(adapter_for(small, ["first"], seed=2))
    lora_mmap.compose(small, [(one, 1.0)])
    lora_mmap.compose(small, [(two, 1.0)], restore="none")
    lora_mmap.compose(fresh, [(two, 1.0)])
    assert weights_equal(small, fresh)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(9, 13), nn.Linear(9, 13)
        self.b.weight = self.a.weight
        self.c = self.a


def test_tied_weights_are_fused_once(sha256):
    model = Tied()
    pristine = copy.deepcopy(model)
    before = sha256(model)
    pair = factors(13, 9)
    report = lora_mmap.compose(model, [(keyed({"b": pair}), 1.0)])
    assert_one_rounding(model.a.weight, pristine.a.weight, [(*pair, 1.0)])
    assert report.to_dict()["restore"]["backup"]["modules"] == 1
    lora_mmap.reset(model)
    assert sha256(model) == before


def test_distinct_terms_on_tied_weights_sum(sha256):
    model = Tied()
    pristine = copy.deepcopy(model)
    before = sha256(model)
    one, two = factors(13, 9, seed=1), factors(13, 9, seed=2)
    lora_mmap.compose(model, [(keyed({"a": one, "b": two}), 0.5)])
    assert_one_rounding(model.a.weight, pristine.a.weight, [(*one, 0.5), (*two, 0.5)])
    assert model.a.weight is model.b.weight
    lora_mmap.reset(model)
    assert sha256(model) == before


def test_a_part_of_a_weight_after_the_whole():
    """A module on some rows of another's storage: composed one after the other, either an error or the right sum."""
    model = nn.Module()
    model.whole, model.part = nn.Linear(9, 12, bias=False), nn.Linear(9, 4, bias=False)
    model.part.weight = nn.Parameter(model.whole.weight.data[:4])
    pristine = copy.deepcopy(model.whole.weight.detach())
    one, two = factors(12, 9, seed=1), factors(4, 9, seed=2)
    lora_mmap.compose(model, [(keyed({"whole": one}), 1.0)])
    try:
        lora_mmap.compose(model, [(keyed({"part": two}), 1.0)])
    except lora_mmap.errors.ModelError:
        pass
    else:
        assert_one_rounding(model.part.weight, pristine[:4], [(*two, 1.0)])
        assert torch.equal(model.whole.weight[4:], pristine[4:])
    lora_mmap.reset(model)
    assert torch.equal(model.whole.weight, pristine)


def test_a_view_of_a_weight_elsewhere_in_the_model_does_not_block_reset():
    """Two forms of one storage at one address: what was composed through the one can be undone."""
    model = nn.Module()
    model.whole, model.part = nn.Linear(9, 12, bias=False), nn.Linear(9, 4, bias=False)
    model.part.weight = nn.Parameter(model.whole.weight.data[:4])
    pristine = model.whole.weight.detach().clone()
    assert lora_mmap.compose(model, [(keyed({"whole": factors(12, 9)}), 1.0)])
    assert lora_mmap.compose(model, [(keyed({"whole": factors(12, 9, seed=2)}), 1.0)])
    assert lora_mmap.reset(model)
    assert torch.equal(model.whole.weight, pristine)


def test_overlapping_weights_in_one_composition_are_refused():
    model = nn.Module()
    model.whole, model.part = nn.Linear(9, 12, bias=False), nn.Linear(9, 4, bias=False)
    model.part.weight = nn.Parameter(model.whole.weight.data[:4])
    pristine = model.whole.weight.detach().clone()
    with pytest.raises(
        lora_mmap.errors.ModelError, match=r"\[compose\].*'whole\.weight' and 'part\.weight'.*separate or fully tied"
    ):
        lora_mmap.compose(model, [(keyed({"whole": factors(12, 9), "part": factors(4, 9)}), 1.0)])
    assert torch.equal(model.whole.weight, pristine)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_channels_last_convolution_equals_the_contiguous_one(small, dtype):
    plain = small.to(dtype)
    last = copy.deepcopy(plain).to(memory_format=torch.channels_last)
    assert not last.conv.weight.is_contiguous()
    strides = last.conv.weight.stride()
    adapter = keyed(adapter_for(plain, ["conv", "point"]))
    lora_mmap.compose(plain, [(adapter, 1.0)])
    lora_mmap.compose(last, [(adapter, 1.0)])
    assert last.conv.weight.stride() == strides
    assert torch.equal(last.conv.weight, plain.conv.weight)
    assert torch.equal(last.point.weight, plain.point.weight)


def _strided(kind, rows, cols):
    if kind == "transposed":
        return torch.randn(cols, rows).t()
    if kind == "row gap":
        return torch.randn(rows, cols + 5)[:, :cols]
    if kind == "column gap":
        return torch.randn(rows, cols * 3)[:, ::3]
    return torch.randn(rows * cols + 1)[1:].reshape(rows, cols)  # aligned to its element only


@pytest.mark.parametrize("kind", ["transposed", "row gap", "column gap", "offset"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64], ids=str)
def test_strided_weights(kind, dtype):
    layer = nn.Linear(19, 31, bias=False)
    values = _strided(kind, 31, 19)
    whole = values._base if values._base is not None else values
    whole = whole.to(dtype)
    view = torch.as_strided(whole, values.shape, values.stride(), values.storage_offset())
    layer.weight = nn.Parameter(view)
    storage = whole.clone()
    pristine = view.detach().clone()
    pair = factors(31, 19)
    model = nn.Sequential(layer)
    lora_mmap.compose(model, [(keyed({"0": pair}), 1.0)])
    assert layer.weight.stride() == values.stride()
    assert_one_rounding(layer.weight, pristine, [(*pair, 1.0)])
    untouched = torch.ones_like(whole, dtype=torch.bool)
    torch.as_strided(untouched, values.shape, values.stride(), values.storage_offset()).fill_(False)
    assert torch.equal(whole[untouched], storage[untouched]), "bytes between the elements changed"
    lora_mmap.reset(model)
    assert torch.equal(whole, storage)


def test_a_weight_whose_elements_share_memory_is_refused(sha256):
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4))
    model[0].weight = nn.Parameter(torch.ones(1, 1).expand(4, 4))
    before = sha256(model)
    with pytest.raises(lora_mmap.errors.ModelError, match=r"\[compose\] weight '0\.weight'.*share"):
        lora_mmap.compose(model, [(keyed({"0": factors(4, 4), "1": factors(4, 4)}), 1.0)])
    assert sha256(model) == before


def test_an_odd_weight_elsewhere_does_not_stand_in_the_way(sha256):
    """A weight that cannot be fused into matters only to an adapter that wants it, also to reset and recompose."""
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4))
    model[0].weight = nn.Parameter(torch.ones(1, 1).expand(4, 4))
    before = sha256(model)
    for strength in (1.0, 0.5):
        assert lora_mmap.compose(model, [(keyed({"1": factors(4, 4)}), strength)])
    assert lora_mmap.reset(model)
    assert sha256(model) == before


def test_one_convolution_as_a_matrix_and_as_a_kernel(small):
    """A 1x1 convolution takes 2-D factors too."""
    other = copy.deepcopy(small)
    down, up = factors(11, (7, 1, 1))
    lora_mmap.compose(small, [(keyed({"point": (down, up)}), 1.0)])
    lora_mmap.compose(other, [(keyed({"point": (down.flatten(1), up.flatten(1))}), 1.0)])
    assert torch.equal(small.point.weight, other.point.weight)


@pytest.mark.parametrize("kind", [nn.Conv1d, nn.Conv3d])
def test_one_and_three_dimensional_convolutions(kind):
    model = nn.Sequential(kind(3, 6, 2, groups=1, bias=False))
    pristine = model[0].weight.detach().clone()
    pair = factors(6, tuple(pristine.shape[1:]))
    lora_mmap.compose(model, [(keyed({"0": pair}), 1.0)])
    assert_one_rounding(model[0].weight, pristine, [(*pair, 1.0)])


def test_nan_and_inf_of_the_weight_stay_as_they_are(small):
    """What was not finite before is no overflow, and a NaN keeps its bits."""
    with torch.no_grad():
        small.first.weight.view(torch.int32)[0, 0] = 0x7FC12345
        small.first.weight[1, 1] = float("inf")
    lora_mmap.compose(small, [(keyed(adapter_for(small, ["first"])), 1.0)])
    assert small.first.weight.detach().view(torch.int32)[0, 0] == 0x7FC12345
    assert small.first.weight[1, 1] == float("inf")


def test_flush_denormal_changes_nothing(small):
    other = copy.deepcopy(small)
    pairs = adapter_for(small, ALL, size=1e-22)
    with torch.no_grad():
        for model in (small, other):
            for parameter in model.parameters():
                parameter.mul_(1e-38)
    lora_mmap.compose(small, [(keyed(pairs), 1.0)])
    torch.set_flush_denormal(True)
    try:
        lora_mmap.compose(other, [(keyed(pairs), 1.0)])
    finally:
        torch.set_flush_denormal(False)
    assert torch.equal(small.first.weight.view(torch.int32), other.first.weight.view(torch.int32))
    assert torch.equal(small.conv.weight.view(torch.int32), other.conv.weight.view(torch.int32))


def test_a_dict_changed_by_its_owner_afterwards(small, sha256):
    """Dict entries are copied: set_lora_strength_v2 works on what was composed."""
    tensors = keyed(adapter_for(small, LINEARS))
    lora_mmap.compose(small, [(tensors, 1.0)])
    composed = sha256(small)
    for tensor in tensors.values():
        tensor.fill_(9.0)
    lora_mmap.set_lora_strength_v2(small, 0.5)
    lora_mmap.set_lora_strength_v2(small, 1.0)
    assert sha256(small) == composed
