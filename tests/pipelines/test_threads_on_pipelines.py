"""Several threads, several pipelines, one cache: right results, one read per file."""

import random

import pytest
from adapter_tensors import write
from in_threads import in_threads
from stand_in_pipelines import Pipeline, adapter, hashes

import lora_mmap
from lora_mmap.cache_settings import BYTES_VARIABLE

FILES = 3


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.setenv(BYTES_VARIABLE, str(1 << 28))
    lora_mmap.clear_lora_cache()
    yield [write(tmp_path / f"{seed}.safetensors", adapter(seed)) for seed in range(FILES)]
    lora_mmap.clear_lora_cache()


def test_eight_threads_on_four_pipelines(files, sha256):
    pipelines = [Pipeline() for _ in range(4)]
    reports = []

    def act(at):
        pipeline, rng = pipelines[at % 4], random.Random(at)
        own = [f"{at}:{n}" for n in range(FILES)]
        for name, path in zip(own, rng.sample(files, FILES), strict=True):
            reports.append(lora_mmap.load_and_fuse_lora(pipeline, path, name, lora_scale=0.25, use_cache=True))
        for _ in range(5):
            lora_mmap.set_and_fuse_adapters(pipeline, rng.sample(own, 2), [rng.uniform(-1, 1), 0.5])
            assert lora_mmap.get_active_adapters(pipeline)
        lora_mmap.delete_adapters(pipeline, own[0])

    in_threads(*(lambda at=at: act(at) for at in range(8)))
    assert sum(report.files_opened for report in reports) == FILES
    assert sum(report.bytes_read for report in reports) == sum(path.stat().st_size for path in files)
    for at, pipeline in enumerate(pipelines):
        names = sorted(f"{thread}:{n}" for thread in (at, at + 4) for n in (1, 2))
        lora_mmap.set_and_fuse_adapters(pipeline, names, [0.5, 1, -1, 2])
        assert lora_mmap.get_active_adapters(pipeline) == names
        chosen = {f"{thread}:{n}": path for thread in (at, at + 4) for n, path in _order(thread, files)}
        twin = Pipeline()
        for name, strength in zip(names, [0.5, 1, -1, 2], strict=True):
            lora_mmap.load_and_fuse_lora(twin, chosen[name], name, lora_scale=strength)
        assert hashes(pipeline, sha256) == hashes(twin, sha256)
        assert lora_mmap.unfuse_lora(pipeline)
        assert hashes(pipeline, sha256) == hashes(Pipeline(), sha256)


def _order(thread, files):
    return list(enumerate(random.Random(thread).sample(files, FILES)))


def test_one_name_in_two_threads_is_loaded_once(files, sha256):
    pipeline, results = Pipeline(), []

    def act():
        results.append(lora_mmap.load_and_fuse_lora(pipeline, files[0], "same", use_cache=True))

    with pytest.warns(lora_mmap.LoraWarning, match="'same' is taken"):
        in_threads(*[act] * 6)
    assert sorted(map(bool, results)) == [False] * 5 + [True]
    twin = Pipeline()
    lora_mmap.load_and_fuse_lora(twin, files[0])
    assert hashes(pipeline, sha256) == hashes(twin, sha256)


def test_default_names_of_two_threads_differ(files):
    pipeline = Pipeline()
    in_threads(*[lambda path=path: lora_mmap.load_and_fuse_lora(pipeline, path) for path in files * 2])
    assert sorted(lora_mmap.get_active_adapters(pipeline)) == [f"default_{n}" for n in range(6)]
