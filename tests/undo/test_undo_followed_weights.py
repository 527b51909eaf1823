"""Weights that were moved since adapters were fused into them, as model offloading does it: followed by their
parameters, known again by their hashes, and undone where they are now."""

import random
import weakref

import pytest
import torch
from fault_stages import STAGES, errors_at
from undo_adapters import adapters_for, overflowing
from undo_histories import Step, history
from undo_models import all_bits, bits_of, differing, every_kind
from undo_moves import CHANGES, Lent, Twins, assert_bits, move_some, pair_for, round_trip, trade_places
from undo_tiers import every_tier, one_of_each_tier
from undo_trials import CALLS, NOTHING, Trial, check_usable, fails
from undo_walker import Mirror, Walker, open_sources

import lora_mmap
from lora_mmap import staging
from lora_mmap.errors import FusionOverflowError, ModelError

DTYPES = (torch.float16, torch.bfloat16, torch.float32)
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)
every_change = pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)

# Entries are (index of an adapter of undo_adapters.py, strength).
EVERYTHING = tuple((index, 1.0) for index in range(12))
STORY = [
    Step("compose", EVERYTHING, EVERYTHING),
    Step("multiply", -0.5, tuple((index, -0.5) for index, _ in EVERYTHING)),
    Step("compose", ((3, 1.0), (0, 0.4), (7, 1.0), (8, 1.0)), ((3, 1.0), (0, 0.4), (7, 1.0), (8, 1.0))),
    Step("take out", 7, ((3, 1.0), (0, 0.4), (8, 1.0))),
    Step("fail", ((1, 1.0),), ((3, 1.0), (0, 0.4), (8, 1.0))),
    Step("multiply", 0.0, ()),
    Step("multiply", 1.0, ((3, 1.0), (0, 0.4), (8, 1.0))),
    Step("reset", (), ()),
]


@every_tier
@every_dtype
def test_every_step_after_a_move(dtype, tier, tmp_path):
    """All kinds of weights and terms, through every kind of step, moved before each."""
    model = every_kind(dtype)
    arguments = tier.arguments(model, tmp_path)
    sources = open_sources(adapters_for(model), tmp_path)
    mirror = Mirror(dtype, sources)
    walker = Walker(model, arguments, sources, lora_mmap.open_adapter(overflowing(model)))
    for step in STORY:
        round_trip(model)
        addresses = [parameter.data_ptr() for parameter in model.parameters()]
        walker.take(step)
        assert [parameter.data_ptr() for parameter in model.parameters()] == addresses
        assert differing(model, mirror.composed(step.after)) == [], step
    assert tier.uses <= walker.tiers or tier.base_dtype not in (None, dtype)  # NaNs need not survive a conversion


@every_tier
@every_dtype
def test_random_steps_with_moves_between(dtype, tier, tmp_path, sha256):
    model, chance = every_kind(dtype), random.Random(str(dtype))
    pristine, arguments = sha256(model), tier.arguments(model, tmp_path)
    sources = open_sources(adapters_for(model), tmp_path)
    mirror = Mirror(dtype, sources)
    walker = Walker(model, arguments, sources, lora_mmap.open_adapter(overflowing(model)))
    for number, step in enumerate(history(f"moved {dtype}", 100, len(sources))):
        if chance.random() < 0.7:
            move_some(model, chance)
        walker.take(step)
        if step.kind == "reset":
            assert sha256(model) == pristine, (number, step)
        assert differing(model, mirror.composed(step.after)) == [], (number, step)


@pytest.mark.parametrize(
    "names", [["tall.weight"], ["table.weight"], ["conv.bias", "wide.bias"], ["last.weight", "norm.weight"]], ids=str
)
@one_of_each_tier
def test_only_some_were_moved(tier, names, tmp_path, sha256):
    model = every_kind(torch.bfloat16)
    pristine = sha256(model)
    sources = adapters_for(model)
    lora_mmap.compose(model, [(one, 1.0) for one in sources], **tier.arguments(model, tmp_path))
    round_trip(model, names)
    lora_mmap.set_lora_strength_v2(model, 0.3)
    round_trip(model, names)
    lora_mmap.reset(model)
    assert sha256(model) == pristine


@every_tier
@every_dtype
def test_one_lies_where_another_was(dtype, tier, tmp_path):
    """An address tells nothing: each weight gets back what is its own."""
    model = Twins(dtype)
    pristine = all_bits(model)
    lora_mmap.compose(model, [(pair_for(model), 1.0)], **tier.arguments(model, tmp_path))
    trade_places(model.a.weight, model.b.weight)
    lora_mmap.set_lora_strength_v2(model, 2.0)
    trade_places(model.b.weight, model.c.weight)
    lora_mmap.reset(model)
    assert_bits(model, pristine)


@every_change
@one_of_each_tier
def test_what_took_the_old_memory_is_not_touched(tier, change, tmp_path):
    model = Twins()
    lent = Lent(model.a.weight)
    pristine = all_bits(model)
    lora_mmap.compose(model, [(pair_for(model), 1.0)], **tier.arguments(model, tmp_path))
    round_trip(model)
    lent.memory[:] = 7.0
    change(model, pair_for(model, "a", "c", seed=1))
    assert (lent.memory == 7.0).all()
    lora_mmap.reset(model)
    assert (lent.memory == 7.0).all()
    assert_bits(model, pristine)


@pytest.mark.parametrize("before", ["composed", "strength", "switched", "refused", "overflowed"])
@every_tier
def test_the_old_memory_is_given_back(tier, before, tmp_path):
    """As soon as a weight has moved; nothing of ours keeps a second copy of a model that is offloaded."""
    model = Twins()
    lent = Lent(model.a.weight)
    arguments = tier.arguments(model, tmp_path)
    report = lora_mmap.compose(model, [(pair_for(model), 1.0)], **arguments)
    if before == "strength":
        lora_mmap.set_lora_strength_v2(model, 0.5)
    elif before == "switched":
        report = lora_mmap.compose(model, [(pair_for(model, "a", "c", seed=1), 1.0)], **arguments)
    elif before == "refused":
        kept = model.b.weight.data.clone()
        model.b.weight.data.zero_()
        with pytest.raises(ModelError):
            lora_mmap.reset(model)
        model.b.weight.data.copy_(kept)
    elif before == "overflowed":
        hopeless = {"a.lora_A.weight": torch.full((1, 70), 3e30), "a.lora_B.weight": torch.full((50, 1), 3e30)}
        with pytest.raises(FusionOverflowError):
            lora_mmap.compose(model, [(hopeless, 1.0)], **arguments)
    memory = weakref.ref(lent.memory)
    del lent
    assert memory() is not None
    round_trip(model)
    assert memory() is None
    assert report
    assert lora_mmap.reset(model)


@every_change
@every_tier
def test_moved_and_written_to_is_refused(tier, change, tmp_path, sha256):
    """One bit is enough, and every weight is left as it is."""
    model = Twins()
    pristine = all_bits(model)
    lora_mmap.compose(model, [(pair_for(model), 1.0)], **tier.arguments(model, tmp_path))
    round_trip(model)
    bits_of(model.b.weight.data)[49, 69] ^= 1
    before = sha256(model)
    for _ in range(2):
        with pytest.raises(ModelError, match=r"'b\.weight'.*somebody else"):
            change(model, pair_for(model, "a", "b", "c", seed=1))
        assert sha256(model) == before
        round_trip(model)
    bits_of(model.b.weight.data)[49, 69] ^= 1
    change(model, pair_for(model, "a", "b", "c", seed=1))
    lora_mmap.reset(model)
    assert_bits(model, pristine)


@every_tier
def test_an_old_copy_is_no_move(tier, tmp_path):
    """Who offloads by throwing away what is on the GPU brings back the weights of before: they are not undone."""
    model = Twins()
    pristine = all_bits(model)
    old = model.a.weight.data.clone()
    lora_mmap.compose(model, [(pair_for(model), 1.0)], **tier.arguments(model, tmp_path))
    model.a.weight.data = old
    with pytest.raises(ModelError, match=r"'a\.weight'"):
        lora_mmap.reset(model)
    assert torch.equal(bits_of(model.a.weight), pristine["a.weight"])
    assert lora_mmap.reset(model, force=True)
    assert_bits(model, pristine)


@every_tier
def test_force_undoes_what_only_moved(tier, tmp_path):
    model = Twins()
    pristine = all_bits(model)
    lora_mmap.compose(model, [(pair_for(model, "a", "b", "c"), 1.0)], **tier.arguments(model, tmp_path))
    round_trip(model)
    model.b.weight.data = torch.ones_like(model.b.weight)
    assert lora_mmap.reset(model, force=True)
    assert (model.b.weight == 1).all()
    assert_bits(model, {**pristine, "b.weight": bits_of(torch.ones(50, 70))})


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(
    "call", [call for call in CALLS if call.before and "compose" not in call.name], ids=lambda call: call.name
)
@one_of_each_tier
def test_a_fault_after_a_move(tier, call, stage, tmp_path, monkeypatch, sha256):
    """Taken back where the weights are now, and usable from there after another move."""
    monkeypatch.setattr(staging, "WINDOW_NBYTES", 1)
    trial = Trial(tier, tmp_path, sha256)
    pristine, before, after = (trial.expected(entries) for entries in (NOTHING, call.before, call.after))
    arrival, error = 1, errors_at(stage)[-1]
    while True:
        trial.compose(call.before)
        round_trip(trial.model)
        if not fails(trial, call, stage, arrival, error):
            assert trial.now() == after
            break
        assert trial.now() in (before, after), (stage, arrival)
        round_trip(trial.model)
        check_usable(trial, call, pristine, after)
        arrival += 3
    assert arrival > 1 or stage not in call.stages
    lora_mmap.reset(trial.model)
    assert trial.now() == pristine
