"""The checks of a device, with the CPU in its place: each passes where all is well, and fails where it is not."""

import pytest
import torch

from bench.gpu import checks, small_model
from bench.gpu.checks.check import Setting
from bench.gpu.findings import Budget, Findings
from bench.gpu.float64 import Reference
from bench.results import CaseResult

CPU = torch.device("cpu")


@pytest.fixture
def setting(tmp_path):
    return Setting.on(CPU, tmp_path, quick=True)


@pytest.mark.parametrize("check", [check for check in checks.ALL if not check.needs_cuda], ids=lambda check: check.name)
def test_on_the_cpu(check, setting):
    assert check.run(setting)


def test_a_changed_bit_is_found(setting, monkeypatch):
    wrong = small_model.stored_bytes

    def one_bit_off(model):
        found = wrong(model)
        found["fc_f16.weight"][7] ^= 1
        return found

    monkeypatch.setattr(checks.arithmetic, "fused_on_cpu", lambda adapters: one_bit_off(small_model.build(CPU)))
    result = CaseResult("gpu", "")
    monkeypatch.setattr(checks, "ALL", checks.ALL[:1])
    checks.run(Findings(result), setting, Budget(60))
    (goal,) = result.goals
    assert not goal.passed
    assert goal.measured.startswith("failed: AssertionError: composition 1 of 6: ")


def test_the_bound_is_broken_by_two_ulps(setting):
    model = small_model.build(CPU)
    reference = Reference(model, [])
    assert max(errors.of_bound for errors in reference.errors(model).values()) == 0
    weight = model.get_submodule("fc_f32").weight
    weight[3, 3] = torch.nextafter(torch.nextafter(weight[3, 3], torch.tensor(9.0)), torch.tensor(9.0))
    assert 1 < reference.errors(model)["fc_f32.weight"].of_bound <= 2


def test_checks_for_which_there_is_no_time_are_left_out(setting):
    result = CaseResult("gpu", "")
    checks.run(Findings(result), setting, Budget(0))
    assert len(result.left_out) == len([check for check in checks.ALL if not check.needs_cuda])
    assert not result.goals
