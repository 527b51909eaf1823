"""Factors that the cache keeps: read once for everybody, within their budget, and gone when it is cleared."""

import pytest
from adapter_tensors import adapter_for, keyed, write
from in_threads import in_threads

import lora_mmap
from lora_mmap.cache_settings import BYTES_VARIABLE

PLENTY = str(1 << 30)


def fuse(model, *paths, strength=1.0, **options):
    return lora_mmap.compose(model, [(path, strength) for path in paths], use_cache=True, **options)


def kept():
    return lora_mmap.lora_cache_info()["bytes"]["factors"]


@pytest.mark.parametrize("retain", ["memory", "file"])
def test_the_second_model_reads_nothing(make_model, files, monkeypatch, sha256, retain):
    monkeypatch.setenv(BYTES_VARIABLE, PLENTY)
    model, other, plain = make_model(), make_model(), make_model()
    assert fuse(model, files[0], retain=retain).bytes_read > 0
    assert fuse(other, files[0], retain=retain).bytes_read == 0
    lora_mmap.compose(plain, [(files[0], 1.0)])
    assert sha256(model) == sha256(other) == sha256(plain)
    lora_mmap.reset(model)
    lora_mmap.reset(other)
    assert sha256(model) == sha256(other) == sha256(make_model())


def test_they_are_counted_and_given_back(make_model, files, monkeypatch):
    monkeypatch.setenv(BYTES_VARIABLE, PLENTY)
    model = make_model()
    fuse(model, files[0])
    nbytes = kept()
    assert nbytes >= sum(2 * 4 * 4 * (96 + 80) for _ in range(2))
    lora_mmap.reset(model)
    assert kept() == nbytes
    assert lora_mmap.clear_lora_cache()["factors"] == nbytes
    assert kept() == 0


def test_compositions_keep_what_was_cleared_under_them(make_model, files, monkeypatch, sha256):
    monkeypatch.setenv(BYTES_VARIABLE, PLENTY)
    model, start = make_model(), sha256(make_model())
    fuse(model, files[0])
    files[0].unlink()
    assert lora_mmap.clear_lora_cache()["factors"] == 0  # in use
    assert lora_mmap.set_lora_strength_v2(model, 0.5).bytes_read == 0
    lora_mmap.reset(model)
    assert sha256(model) == start


def test_the_budget_holds_and_those_used_last_stay(make_model, files, monkeypatch):
    monkeypatch.setenv(BYTES_VARIABLE, PLENTY)
    fuse(make_model(), files[0])
    each = kept()
    lora_mmap.clear_lora_cache()
    monkeypatch.setenv(BYTES_VARIABLE, str(2 * each))
    for path in files[:4]:
        fuse(make_model(), path)
        assert kept() <= 2 * each
    assert kept() == 2 * each
    assert fuse(make_model(), files[3]).bytes_read == 0
    assert fuse(make_model(), files[2]).bytes_read == 0
    assert fuse(make_model(), files[0]).bytes_read > 0


def test_what_does_not_fit_is_read_each_time(make_model, files, monkeypatch, sha256):
    monkeypatch.setenv(BYTES_VARIABLE, "100")
    first, second = make_model(), make_model()
    fuse(first, files[0])
    assert fuse(second, files[0]).bytes_read > 0
    assert kept() == 0
    assert sha256(first) == sha256(second)


def test_adapters_on_other_parts_of_a_model_share_what_they_can(make_model, files, monkeypatch, sha256):
    monkeypatch.setenv(BYTES_VARIABLE, PLENTY)
    whole, part = make_model(), make_model()[:2]
    fuse(part, files[0])  # reads the factors of two modules
    report = fuse(whole, files[0])
    plain = make_model()
    lora_mmap.compose(plain, [(files[0], 1.0)])
    assert 0 < report.bytes_read < files[0].stat().st_size / 1.5
    assert sha256(whole) == sha256(plain)


def test_eight_threads_read_each_file_once(make_model, files, monkeypatch, sha256):
    monkeypatch.setenv(BYTES_VARIABLE, PLENTY)
    models = [make_model() for _ in range(8)]
    reports = [None] * 8
    alone = []
    for path in files[:2]:
        lora_mmap.clear_lora_cache()
        alone.append(fuse(make_model(), path).bytes_read)
    lora_mmap.clear_lora_cache()

    def act(at):
        reports[at] = fuse(models[at], *(files[:2] if at % 2 else files[1::-1]))

    in_threads(*(lambda at=at: act(at) for at in range(8)))
    assert lora_mmap.lora_cache_info()["entries"] == 2
    assert sum(report.files_opened for report in reports) == 2
    adapters = {id(entry.adapter): entry.adapter for report in reports for entry in report.entries}
    assert sorted(adapter.source.file.bytes_read for adapter in adapters.values()) == sorted(alone)
    expected = []
    for order in (files[1::-1], files[:2]):
        plain = make_model()
        lora_mmap.compose(plain, [(path, 1.0) for path in order])
        expected.append(sha256(plain))
    assert [sha256(model) for model in models] == expected * 4


def test_a_file_written_to_meanwhile_is_not_mixed_up(make_model, files, monkeypatch, sha256):
    monkeypatch.setenv(BYTES_VARIABLE, PLENTY)
    model = make_model()
    fuse(model, files[0])
    start = sha256(model)
    write(files[0], keyed(adapter_for(model, ["0", "1", "2", "3"], seed=77), 2))
    other, plain = make_model(), make_model()
    fuse(other, files[0])
    lora_mmap.compose(plain, [(files[0], 1.0)])
    assert sha256(other) == sha256(plain) != start
    lora_mmap.reset(model)
    assert sha256(model) == sha256(make_model())
