"""Whatever goes wrong wherever it goes wrong: every weight as it was, or every weight in the new state."""

import pytest
from fault_stages import STAGES, errors_at
from undo_tiers import one_of_each_tier
from undo_trials import CALLS, NOTHING, Trial, check_usable, fails

import lora_mmap
from lora_mmap import staging


@pytest.fixture
def windows(monkeypatch):
    """Every weight in a window of its own, so that faults arrive between weights."""
    monkeypatch.setattr(staging, "WINDOW_NBYTES", 1)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.name)
@one_of_each_tier
def test_a_fault_at_every_arrival(tier, call, stage, tmp_path, windows, sha256):
    trial = Trial(tier, tmp_path, sha256)
    pristine, before, after = (trial.expected(entries) for entries in (NOTHING, call.before, call.after))
    assert before != after
    arrivals = 0
    for error in errors_at(stage):
        arrival = 0
        while True:
            arrival += 1
            assert arrival < 1000, "a fault that never stops arriving"
            trial.compose(call.before)
            assert trial.now() == before
            if not fails(trial, call, stage, arrival, error):
                assert trial.now() == after
                break
            arrivals += 1
            assert trial.now() in (before, after), (stage, arrival, error)
            check_usable(trial, call, pristine, after)
        lora_mmap.reset(trial.model)
        assert trial.now() == pristine
    expected = {*call.stages, *(["encode"] if "journal" in tier.uses and "tile" in call.stages else [])}
    assert arrivals >= len(errors_at(stage)) or stage not in expected, f"nothing came to {stage}"
