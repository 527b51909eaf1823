"""Several threads: different models share an adapter; one model ends in one of the results, never in a mixture."""

import copy

import pytest
import torch
from adapter_tensors import adapter_for, keyed, write
from in_threads import in_threads

import lora_mmap
from lora_mmap import staging

MODULES = ["first", "second", "conv", "point"]


@pytest.mark.parametrize("kind", ["adapter", "path", "dict"])
def test_different_models_share_an_adapter(small, tmp_path, kind, sha256):
    tensors = keyed(adapter_for(small, MODULES), alpha=3)
    path = write(tmp_path / "a.safetensors", tensors)
    expected = copy.deepcopy(small)
    lora_mmap.compose(expected, [(tensors, 0.5)])
    models = [copy.deepcopy(small) for _ in range(4)]
    for _ in range(5):
        with lora_mmap.open_adapter(path) as adapter:
            source = {"adapter": adapter, "path": path, "dict": tensors}[kind]
            in_threads(*(lambda m=m, s=source: lora_mmap.compose(m, [(s, 0.5)]) for m in models))
        assert {sha256(model) for model in models} == {sha256(expected)}
        for model in models:
            lora_mmap.reset(model)
        assert {sha256(model) for model in models} == {sha256(small)}


def test_one_model_ends_in_one_of_the_results(small, monkeypatch, sha256):
    monkeypatch.setattr(staging, "WINDOW_NBYTES", 1)
    sources = [lora_mmap.open_adapter(keyed(adapter_for(small, MODULES[i:], seed=i))) for i in range(3)]
    pristine, results = sha256(small), set()
    for source in sources:
        model = copy.deepcopy(small)
        lora_mmap.compose(model, [(source, 1.0)])
        results.add(sha256(model))
    for _ in range(15):
        in_threads(*(lambda s=source: lora_mmap.compose(small, [(s, 1.0)]) for source in sources))
        assert sha256(small) in results
    lora_mmap.reset(small)
    assert sha256(small) == pristine


def test_compose_reset_and_strength_at_once(small, sha256):
    pristine = sha256(small)
    adapter = lora_mmap.open_adapter(keyed(adapter_for(small, MODULES)))

    def often(action):
        def run():
            for _ in range(30):
                action()

        return run

    in_threads(
        often(lambda: lora_mmap.compose(small, [(adapter, 1.0)])),
        often(lambda: lora_mmap.set_lora_strength_v2(small, 0.5)),
        often(lambda: lora_mmap.reset(small)),
        often(lambda: lora_mmap.check(small, [(adapter, 1.0)])),
    )
    lora_mmap.reset(small)
    assert sha256(small) == pristine


def test_the_number_of_torch_threads_changes_no_bit(small, sha256):
    tensors = keyed(adapter_for(small, MODULES, 9))
    hashes, before = set(), torch.get_num_threads()
    try:
        for count in (1, 2, 3, 7):
            torch.set_num_threads(count)
            model = copy.deepcopy(small)
            lora_mmap.compose(model, [(tensors, 0.3)])
            hashes.add(sha256(model))
    finally:
        torch.set_num_threads(before)
    assert len(hashes) == 1


def test_rounding_state_of_a_thread_changes_no_bit(small, sha256):
    """A thread that flushes denormals composes the same bits, and keeps its own setting."""
    tensors = keyed(adapter_for(small, MODULES, size=1e-22))
    with torch.no_grad():
        for parameter in small.parameters():
            parameter.mul_(1e-38)
    flushed = copy.deepcopy(small)
    lora_mmap.compose(small, [(tensors, 1.0)])
    kept = []

    def run():
        torch.set_flush_denormal(True)
        lora_mmap.compose(flushed, [(tensors, 1.0)])
        kept.append((torch.tensor([1e-40]) * 1.0).item())

    in_threads(run)
    assert sha256(flushed) == sha256(small)
    assert kept == [0.0]
