"""Each peer's adapters, written once a session; a peer that is not installed takes its tests with it."""

import warnings

import pytest
import torch

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from bench.accuracy.measurement import PEERS, specimens, why_not

    SPECIMENS = {found.name: found for peer in PEERS if why_not(peer) is None for found in specimens(peer)}
    MISSING = {peer: reason for peer in PEERS if (reason := why_not(peer))}

# Unit roundoff: half of the spacing at 1.
ROUNDOFF = {torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8, torch.float32: 2.0**-24, torch.float64: 2.0**-53}

every_specimen = pytest.mark.parametrize("specimen", SPECIMENS.values(), ids=lambda found: found.name)


# Not every combination: together they cover both, and merging with the peers is what takes the time.
_STRENGTHS = {torch.float16: (0.5,), torch.bfloat16: (1.0, -0.7), torch.float32: (1.0,), torch.float64: (-0.7,)}


def strengths_of(specimen, dtype):
    return _STRENGTHS[dtype] if specimen.any_strength else (1.0,)
