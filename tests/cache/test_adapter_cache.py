"""Files in the cache are opened, parsed and classified once; what is kept is counted, bounded, and given back."""

import gc
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from adapter_tensors import adapter_for, keyed, write

import lora_mmap
from lora_mmap.cache_settings import BYTES_VARIABLE


def fuse(model, *paths, strength=1.0, **options):
    return lora_mmap.compose(model, [(path, strength) for path in paths], use_cache=True, **options)


def counted(*names):
    info = lora_mmap.lora_cache_info()
    return tuple(info[name] for name in names)


def since(before):
    after = lora_mmap.lora_cache_info()
    return {name: after[name] - before[name] for name in ("hits", "misses", "evictions")}


def open_files(folder):
    links = (Path("/proc/self/fd") / name for name in os.listdir("/proc/self/fd"))
    targets = [os.readlink(link) for link in links if link.is_symlink()]
    return sorted(Path(target).name for target in targets if target.startswith(str(folder)))


def header_nbytes(path):
    return 8 + int.from_bytes(path.read_bytes()[:8], "little")


def test_the_second_use_opens_parses_and_classifies_nothing(make_model, files, sha256):
    model, before = make_model(), lora_mmap.lora_cache_info()
    first = fuse(model, files[0])
    expected = sha256(model)
    lora_mmap.reset(model)
    second = fuse(model, files[0])
    assert sha256(model) == expected
    assert (first.files_opened, first.headers_parsed, first.keys_classified) == (1, 1, 12)
    assert (second.files_opened, second.headers_parsed, second.keys_classified) == (0, 0, 0)
    alphas = 4 * 4
    assert first.bytes_read - second.bytes_read == header_nbytes(files[0]) + alphas
    assert since(before) == {"hits": 1, "misses": 1, "evictions": 0}


def test_another_strength_of_what_is_composed_reads_nothing(make_model, files, sha256):
    model, twin = make_model(), make_model()
    fuse(model, files[0], files[1])
    report = fuse(model, files[0], files[1], strength=-0.25)
    assert report
    assert report.bytes_read == 0
    lora_mmap.compose(twin, [(files[0], -0.25), (files[1], -0.25)])
    assert sha256(model) == sha256(twin)


def test_it_is_left_alone_unless_asked(make_model, files):
    lora_mmap.compose(make_model(), [(files[0], 1.0)])
    assert counted("entries") == (0,)


def test_a_file_behind_a_link_is_one_entry(make_model, files, tmp_path):
    link = tmp_path / "link.safetensors"
    link.symlink_to(files[0])
    fuse(make_model(), files[0])
    assert fuse(make_model(), link).files_opened == 0
    assert counted("entries") == (1,)


@pytest.mark.parametrize("how", ["replaced", "rewritten"])
def test_a_file_that_became_another_is_read_anew(make_model, files, sha256, how):
    model, twin = make_model(), make_model()
    fuse(model, files[0])
    lora_mmap.reset(model)
    if how == "replaced":
        os.replace(files[1], files[0])
    else:
        content = bytearray(files[0].read_bytes())
        content[-4:] = torch.tensor(9.0).numpy().tobytes()
        stat = files[0].stat()
        files[0].write_bytes(content)
        os.utime(files[0], ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    report = fuse(model, files[0])
    assert report.headers_parsed == 1
    lora_mmap.compose(twin, [(files[0], 1.0)])
    assert sha256(model) == sha256(twin)
    assert counted("entries") == (1,)
    assert open_files(files[0].parent) == ["0.safetensors", "0.safetensors"]  # the cache's and the twin's


def test_a_configuration_beside_a_file_is_part_of_it(make_model, files, tmp_path, sha256):
    folder = tmp_path / "peft"
    folder.mkdir()
    model, twin = make_model(), make_model()
    pairs = keyed(adapter_for(model, ["0", "1"], rank=4), prefix="base_model.model.")
    write(folder / "adapter_model.safetensors", pairs)
    config = folder / "adapter_config.json"
    config.write_text(json.dumps({"peft_type": "LORA", "r": 4, "lora_alpha": 4}))
    fuse(model, folder)
    config.write_text(json.dumps({"peft_type": "LORA", "r": 4, "lora_alpha": 16, "use_rslora": True}))
    assert fuse(model, folder).headers_parsed == 1
    lora_mmap.compose(twin, [(folder, 1.0)])
    assert sha256(model) == sha256(twin)


def test_those_used_last_stay(make_model, files, monkeypatch):
    monkeypatch.setenv("LORA_MMAP_CACHE_SIZE", "2")
    model, before = make_model(), lora_mmap.lora_cache_info()
    fuse(model, files[0])
    fuse(model, files[1])
    fuse(model, files[0])
    fuse(model, files[2])
    assert counted("entries", "max_entries") == (2, 2)
    assert since(before) == {"hits": 1, "misses": 3, "evictions": 1}
    assert fuse(model, files[0]).files_opened == 0
    assert fuse(model, files[1]).files_opened == 1


def test_ten_are_kept_by_default(make_model, files):
    model = make_model()
    for path in files:
        fuse(model, path)
    lora_mmap.reset(model)
    assert counted("entries", "max_entries") == (10, 10)
    assert open_files(files[0].parent) == sorted(path.name for path in files[2:])


def test_an_adapter_that_was_pushed_out_stays_open_for_its_users(make_model, files, monkeypatch, sha256):
    monkeypatch.setenv("LORA_MMAP_CACHE_SIZE", "1")
    model, start = make_model(), sha256(make_model())
    fuse(model, files[0], retain="file")
    fuse(make_model(), files[1])
    assert lora_mmap.set_lora_strength_v2(model, 0.5)  # which reads its file again
    assert lora_mmap.reset(model)
    assert sha256(model) == start
    gc.collect()
    assert open_files(files[0].parent) == ["1.safetensors"]


@pytest.mark.parametrize("variable", ["LORA_MMAP_CACHE_SIZE", "ONEDIFFX_LORA_CACHE_SIZE"])
def test_zero_switches_it_off(make_model, files, monkeypatch, variable):
    monkeypatch.setenv(variable, "0")
    model, before = make_model(), lora_mmap.lora_cache_info()
    assert fuse(model, files[0]).files_opened == 1
    assert fuse(model, files[0]).files_opened == 1
    assert counted("entries", "max_entries") == (0, 0)
    assert since(before) == {"hits": 0, "misses": 0, "evictions": 0}
    lora_mmap.reset(model)
    assert open_files(files[0].parent) == []


def test_our_variable_goes_before_theirs(monkeypatch):
    monkeypatch.setenv("ONEDIFFX_LORA_CACHE_SIZE", "3")
    assert counted("max_entries") == (3,)
    monkeypatch.setenv("LORA_MMAP_CACHE_SIZE", "4")
    assert counted("max_entries") == (4,)


@pytest.mark.parametrize("variable", ["LORA_MMAP_CACHE_SIZE", "ONEDIFFX_LORA_CACHE_SIZE", BYTES_VARIABLE])
@pytest.mark.parametrize("value", ["-1", "many", "1.5", "10 GB"])
def test_bad_limits_are_named(make_model, files, monkeypatch, sha256, variable, value):
    monkeypatch.setenv(variable, value)
    model, start = make_model(), sha256(make_model())
    with pytest.raises(lora_mmap.errors.ArgumentError, match=rf"\[compose\].*{variable} is '{value}'.*from 0 on"):
        fuse(model, files[0])
    with pytest.raises(lora_mmap.errors.ArgumentError, match=rf"\[lora_cache_info\].*{variable}"):
        lora_mmap.lora_cache_info()
    assert sha256(model) == start


def test_clearing_closes_what_nobody_uses(make_model, files):
    model = make_model()
    fuse(model, files[0])
    fuse(model, files[1])
    expected = header_nbytes(files[0])
    freed = lora_mmap.clear_lora_cache()
    assert (freed["entries"], freed["headers"], freed["factors"]) == (2, expected, 0)
    assert open_files(files[0].parent) == ["1.safetensors"]  # composed
    assert counted("entries") == (0,)
    lora_mmap.reset(model)
    assert open_files(files[0].parent) == []


def test_what_dies_with_its_model_is_given_back(make_model, files):
    model = make_model()
    fuse(model, files[0])
    lora_mmap.clear_lora_cache()
    assert open_files(files[0].parent) == ["0.safetensors"]
    del model
    gc.collect()
    assert open_files(files[0].parent) == []


def test_bad_files_are_not_kept(make_model, files):
    good = files[0].read_bytes()
    files[0].write_bytes(good[:40])
    with pytest.raises(lora_mmap.errors.HeaderError):
        fuse(make_model(), files[0])
    assert counted("entries") == (0,)
    assert open_files(files[0].parent) == []
    files[0].write_bytes(good)
    assert fuse(make_model(), files[0])


def test_dicts_and_pickles_are_not_kept(make_model, files, tmp_path):
    tensors = keyed(adapter_for(make_model(), ["0"]))
    torch.save(tensors, tmp_path / "pickle.pt")
    assert fuse(make_model(), tensors)
    assert fuse(make_model(), tmp_path / "pickle.pt").files_opened == 1
    assert counted("entries", "misses")[0] == 0


def test_missing_files_raise_as_without_a_cache(make_model, tmp_path):
    with pytest.raises(FileNotFoundError):
        fuse(make_model(), tmp_path / "none.safetensors")


def test_a_file_is_opened_once_in_a_list(make_model, files):
    before = lora_mmap.lora_cache_info()
    assert fuse(make_model(), files[0], files[0]).files_opened == 1
    assert since(before) == {"hits": 0, "misses": 1, "evictions": 0}


def test_a_deleted_file_leaves_no_entry_in_the_way(make_model, files):
    fuse(make_model(), files[0])
    aside = files[0].with_suffix(".aside")
    shutil.move(files[0], aside)
    with pytest.raises(FileNotFoundError):
        fuse(make_model(), files[0])
    shutil.move(aside, files[0])
    assert fuse(make_model(), files[0]).files_opened == 0
