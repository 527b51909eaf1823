"""Files of PEFT, LyCORIS and diffusers: fused within the contract's bound, and equal to what the peer itself fuses."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from written_by_peers import ROUNDOFF, every_specimen, strengths_of

import lora_mmap
from bench.accuracy import measurement
from bench.accuracy.error import bound
from bench.accuracy.reference import composed
from bench.accuracy.specimens import layer_of
from bench.accuracy.sums import exact

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@every_specimen
def test_within_the_bound_and_equal_to_the_peer(written, specimen, dtype):
    adapter = written(specimen)
    pristine = nn.Module.to(copy.deepcopy(adapter.base), dtype)
    for strength in strengths_of(specimen, dtype):
        ours = measurement.fused(adapter, pristine, strength)
        touched = _assert_close(adapter, pristine, ours, strength)
        for name, parameter in pristine.named_parameters():
            assert (name in touched) is not torch.equal(ours[name], parameter), name


def _assert_close(adapter, pristine, fused, strength):
    touched = set()
    merged = measurement.merged(adapter, pristine, strength)
    for module in adapter.stems:
        layer = layer_of(pristine, module)
        for parameter, (start, added) in composed(layer, [adapter.use(module, strength)]).items():
            name = f"{module}.{parameter}"
            touched.add(name)
            ours, theirs, wanted = exact(fused[name]), exact(merged[name]), start + added.value
            own = bound(fused[name], added)
            assert np.all(np.abs(ours - wanted) <= own), name
            assert np.all(np.abs(ours - theirs) <= own + np.abs(theirs - wanted)), name
            length = np.sqrt((wanted**2).sum())
            peer_error = np.sqrt(((theirs - wanted) ** 2).sum()) / length
            our_error = np.sqrt(((ours - wanted) ** 2).sum()) / length
            assert peer_error <= 8 * max(ROUNDOFF[fused[name].dtype], 2.0**-24), name
            # fp32 sums in another order: neither is nearer by design
            assert our_error <= peer_error * 1.05 + 4 * ROUNDOFF[torch.float32], name
    return touched


@every_specimen
def test_taken_out_again_bit_for_bit(written, specimen, sha256):
    adapter = written(specimen)
    model = nn.Module.to(copy.deepcopy(adapter.base), torch.bfloat16)
    before = sha256(model)
    report = lora_mmap.compose(model, [(adapter.source, 0.9)], strict=True)
    assert sha256(model) != before
    assert {found["outcome"] for found in report.to_dict()["keys"].values()} == {"applied"}
    assert lora_mmap.reset(model)
    assert sha256(model) == before
