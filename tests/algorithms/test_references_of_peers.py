"""The reference says what the peers say: in float64 and float32 their merged weights are its own. Without lora_mmap."""

import copy

import pytest
import torch
from torch import nn
from written_by_peers import MISSING, ROUNDOFF, SPECIMENS, every_specimen, strengths_of

from bench.accuracy import measurement
from bench.accuracy.reference import composed
from bench.accuracy.specimens import layer_of

# A scale in float32 whatever the dtype of the weights: PEFT computes LoHa's so, and LyCORIS saves alpha so.
SCALE_IN_FLOAT32 = ("PEFT: LoHa", "PEFT: LoHa in Tucker form", "LyCORIS: LoCon, rsLoRA")


@pytest.mark.parametrize("peer", measurement.PEERS)
def test_every_peer_has_been_asked(peer):
    if peer in MISSING:
        pytest.skip(MISSING[peer])
    assert sum(found.peer == peer for found in SPECIMENS.values()) >= 5


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@every_specimen
def test_merged_weights(written, specimen, dtype):
    adapter = written(specimen)
    pristine = nn.Module.to(copy.deepcopy(adapter.base), dtype)
    roundoff = ROUNDOFF[torch.float32 if specimen.name in SCALE_IN_FLOAT32 else dtype]
    for strength in strengths_of(specimen, dtype):
        merged = measurement.merged(adapter, pristine, strength)
        for name, error in measurement.errors(adapter, pristine, merged, strength).items():
            assert not torch.equal(merged[name], pristine.get_parameter(name)), name
            assert error.norm <= 8 * roundoff, f"{name} at strength {strength}: {error}"


@pytest.mark.parametrize("name", [name for name in SPECIMENS if name.startswith("LyCORIS")])
def test_the_forward_pass_of_lycoris(written, name):
    """What LyCORIS' layers compute while they train, against the reference's weights: its merged weights are ours to
    put together from its parts, its outputs are not."""
    adapter = written(SPECIMENS[name])
    model = copy.deepcopy(adapter.base).double()
    for module in adapter.stems:
        layer, use = model.get_submodule(module), adapter.use(module, 1.0)
        expected = composed(layer_of(model, module), [use])
        inputs = _input_of(layer)
        changed = copy.deepcopy(layer)
        with torch.no_grad():
            for parameter, (start, added) in expected.items():
                getattr(changed, parameter).copy_(torch.from_numpy((start + added.value).astype("float64")))
            outputs, wanted = adapter.module(module, layer)(inputs), changed(inputs)
        assert (outputs - wanted).norm() <= 1e-7 * wanted.norm(), module


def _input_of(layer):
    generator = torch.Generator().manual_seed(3)
    if isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
        return torch.randn(2, layer.in_channels, *[5] * len(layer.kernel_size), generator=generator).double()
    width = layer.in_features if isinstance(layer, nn.Linear) else layer.weight.shape[0]
    return torch.randn(2, width, generator=generator).double()
