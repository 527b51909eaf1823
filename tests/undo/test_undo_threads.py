"""Eight threads on one model, with shared adapters: it ends as some order of their calls one after the other would
have left it."""

import random
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from in_threads import in_threads
from undo_adapters import adapters_for
from undo_histories import HAS_PARTIAL_RESETS
from undo_models import all_bits, differing, every_kind, write_bits
from undo_tiers import every_tier, one_of_each_tier
from undo_walker import open_sources

import lora_mmap
from lora_mmap import staging
from lora_mmap.errors import ModelError

THREADS, ROUNDS, CALLS = 8, 10, 20  # 8 x 200 calls, whose outcome is looked at ten times
COMPOSITIONS = [((0, 1.0),), ((1, 0.5), (4, 1.0)), ((6, -0.7), (2, 1.0)), ((8, 1.0),), ((9, 0.5), (0, 0.2))]
FACTORS = (0.0, -0.5, 1.0)


class Shared:
    """One model, and the fingerprints of every state that some order of calls may leave."""

    def __init__(self, tier, folder, sha256):
        self.model, self._sha256 = every_kind(torch.float16), sha256
        self.arguments = tier.arguments(self.model, folder)
        self.sources = open_sources(adapters_for(self.model), folder)
        self._mirror = every_kind(torch.float16)
        self._pristine = all_bits(self._mirror)

    def entries(self, entries):
        return [(self.sources[index], strength) for index, strength in entries]

    def state(self, entries, factor=1.0):
        write_bits(self._mirror, self._pristine)
        scaled = [(index, strength * factor) for index, strength in entries]
        lora_mmap.compose(self._mirror, self.entries(scaled), restore="none")
        return self._sha256(self._mirror)

    def now(self):
        return self._sha256(self.model)


@pytest.fixture
def one_torch_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def random_calls(shared, source):
    """Calls of one thread; the last one replaces whatever others did before it."""
    for _ in range(CALLS - 1):
        kind = source.choice(["compose", "compose", "strength", "reset", "take out", "check"])
        if kind == "compose":
            lora_mmap.compose(shared.model, shared.entries(source.choice(COMPOSITIONS)), **shared.arguments)
        elif kind == "strength":
            lora_mmap.set_lora_strength_v2(shared.model, source.choice(FACTORS))
        elif kind == "take out" and HAS_PARTIAL_RESETS:
            lora_mmap.reset(shared.model, adapters=[shared.sources[source.randrange(10)]])
        elif kind == "check":
            lora_mmap.check(shared.model, shared.entries(source.choice(COMPOSITIONS)))
        else:
            lora_mmap.reset(shared.model)


@every_tier
def test_eight_threads_on_one_model(tier, tmp_path, sha256, one_torch_thread):
    """Every thread's last call composes something of its own, so one of these eight is the last of all."""
    shared = Shared(tier, tmp_path, sha256)
    pristine = shared.now()
    last = [((thread, 1.0), (1, 0.1 * thread)) for thread in range(THREADS)]
    legal = {shared.state(entries) for entries in last}
    assert len(legal) == THREADS
    for number in range(ROUNDS):

        def work(thread, number=number):
            random_calls(shared, random.Random(100 * number + thread))
            lora_mmap.compose(shared.model, shared.entries(last[thread]), **shared.arguments)

        in_threads(*(lambda thread=thread: work(thread) for thread in range(THREADS)))
        assert shared.now() in legal, number
    lora_mmap.reset(shared.model)
    assert shared.now() == pristine


@one_of_each_tier
def test_any_call_may_be_the_last(tier, tmp_path, sha256, one_torch_thread):
    """Compositions, strengths and resets at once: the state is one of those that exist at all."""
    shared = Shared(tier, tmp_path, sha256)
    pristine = shared.now()
    legal = {shared.state(entries, factor) for entries in COMPOSITIONS for factor in FACTORS} | {pristine}

    def work(source):
        for _ in range(6):
            kind = source.choice(["compose", "compose", "strength", "reset"])
            if kind == "compose":
                lora_mmap.compose(shared.model, shared.entries(source.choice(COMPOSITIONS)), **shared.arguments)
            elif kind == "strength":
                lora_mmap.set_lora_strength_v2(shared.model, source.choice(FACTORS))
            else:
                lora_mmap.reset(shared.model)

    for number in range(15):
        sources = [random.Random(10 * number + thread) for thread in range(4)]
        in_threads(*(lambda source=source: work(source) for source in sources))
        assert shared.now() in legal, number
    lora_mmap.reset(shared.model)
    assert shared.now() == pristine


@one_of_each_tier
def test_two_models_at_once(tier, tmp_path, sha256, one_torch_thread):
    """Each thread walks on a model of its own, with adapters that both share, and finds it as it should be."""
    models = [Shared(tier, tmp_path, sha256) for _ in range(2)]
    models[1].sources = models[0].sources

    def walk(shared, seed):
        source, pristine = random.Random(seed), shared.now()
        for _ in range(40):
            entries = source.choice(COMPOSITIONS)
            lora_mmap.compose(shared.model, shared.entries(entries), **shared.arguments)
            factor = source.choice(FACTORS)
            lora_mmap.set_lora_strength_v2(shared.model, factor)
            shared.state(entries, factor)
            assert differing(shared.model, shared._mirror) == []
            assert lora_mmap.reset(shared.model) is (factor != 0)
            assert shared.now() == pristine

    in_threads(*(lambda shared=shared, seed=seed: walk(shared, seed) for seed, shared in enumerate(models)))


@one_of_each_tier
def test_reports_read_while_others_compose(tier, tmp_path, sha256, one_torch_thread):
    """A report tells of its own call, whatever has happened to the model since."""
    shared = Shared(tier, tmp_path, sha256)
    alone = {}
    for entries in COMPOSITIONS:
        alone[entries] = told_by(lora_mmap.compose(shared.model, shared.entries(entries), **shared.arguments))
        lora_mmap.reset(shared.model)

    def work(source):
        for _ in range(15):
            entries = source.choice(COMPOSITIONS)
            report = lora_mmap.compose(shared.model, shared.entries(entries), **shared.arguments)
            assert report
            assert told_by(report) == alone[entries]
            assert f"{report.applied} of " in str(report)

    in_threads(*(lambda seed=seed: work(random.Random(seed)) for seed in range(4)))


def told_by(report):
    """What does not depend on the time, or on what was composed before."""
    told = report.to_dict()
    modules = {name: (module["outcome"], module["terms"]) for name, module in told["modules"].items()}
    tiers = {tier: cost["modules"] for tier, cost in told["restore"].items()}
    return told["applied"], modules, tiers, told["unmatched"], report.weights


def test_two_models_that_share_a_weight(tmp_path, sha256, monkeypatch):
    """While one writes to it the other is refused, though nothing is composed yet; both can be used afterwards."""
    models = [every_kind(torch.float16) for _ in range(2)]
    models[1].wide.weight = models[0].wide.weight
    pristine = [sha256(model) for model in models]
    sources = open_sources(adapters_for(models[0]), tmp_path)
    writing, go_on = threading.Event(), threading.Event()
    load = staging.HostStream.load

    def slow(stream, window):
        writing.set()
        assert go_on.wait(60)
        load(stream, window)

    monkeypatch.setattr(staging.HostStream, "load", slow)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(lora_mmap.compose, models[0], [(sources[0], 1.0)])
        assert writing.wait(60)
        with pytest.raises(ModelError, match=r"'wide\.weight' is fused into through another model object"):
            lora_mmap.compose(models[1], [(sources[0], 1.0)])
        go_on.set()
        assert first.result()
    with pytest.raises(ModelError, match="another model object"):
        lora_mmap.compose(models[1], [(sources[0], 1.0)])
    lora_mmap.reset(models[0])
    assert lora_mmap.compose(models[1], [(sources[0], 1.0)])
    lora_mmap.reset(models[1])
    assert [sha256(model) for model in models] == pristine
