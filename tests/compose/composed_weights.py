"""What is looked for in the weights after a composition."""

import torch
from numerics_bound import assert_one_rounding

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
