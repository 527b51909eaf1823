"""Undoing and switching on a device: the bits of the CPU after every step, the start's after every reset."""

import gc

import pytest
import torch
from base_checkpoints import save_base
from undo_adapters import adapters_for, overflowing, pairs
from undo_histories import history
from undo_models import all_bits, bits_of, differing, every_kind
from undo_walker import Mirror, Walker, open_sources

import lora_mmap
from lora_mmap import _C, device_moves, device_site
from lora_mmap.cuda import device_stream
from lora_mmap.errors import ModelError, ReadError

every_dtype = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
STEPS = 120
KINDS = {
    "auto": {},
    "journal of ranges": {"retain": "file"},
    "factors on the device": {"retain": "device"},
    "backup": {"restore": "backup"},
    "copies in memory": {"restore": "backup", "retain": "memory"},
    "fast": {"numerics": "fast"},
    "file": {"restore": "file"},
    "file of another dtype": {"restore": "auto"},
}


def arguments_of(kind, pristine, folder):
    """What ``compose`` is given beside the list; the weights also stand in a file, where it is to restore them."""
    if not kind.startswith("file"):
        return KINDS[kind]
    return {
        **KINDS[kind],
        "base": save_base(pristine, folder / "base.safetensors", None if kind == "file" else torch.float32),
    }


@pytest.fixture
def on_device(torch_side):
    """Brings a model to the fake device; its bits, once the device is done."""

    def bring(model):
        last = model.last.weight.is_contiguous()
        torch_side.move(model)
        assert model.last.weight.is_contiguous() == last
        return model

    return bring


def is_as(model, expected, torch_side):
    torch_side.synchronize()
    return differing(model, expected) == []


@pytest.mark.parametrize("mode", ["eager", "random"])
@pytest.mark.parametrize("kind", KINDS)
@every_dtype
def test_random_steps(dtype, kind, mode, tmp_path, on_device, torch_side, fake_cuda):
    fake_cuda.mode(mode, 3)
    arguments = arguments_of(kind, every_kind(dtype), tmp_path)
    model = on_device(every_kind(dtype))
    sources = open_sources(adapters_for(model), tmp_path)
    mirror = Mirror(dtype, sources)
    walker = Walker(model, arguments, sources, lora_mmap.open_adapter(overflowing(model)))
    before = torch_side.held[0]
    for number, step in enumerate(history(f"{dtype} {kind}", STEPS, len(sources))):
        walker.take(step)
        if step.kind == "reset":
            gc.collect()  # errors hold frames
            assert (torch_side.held[0], _C.cuda_pinned_block_nbytes()) == (before, 0)
        torch_side.synchronize()
        assert differing(model, mirror.composed(step.after)) == [], (number, step)
    best = dict.fromkeys(("auto", "journal of ranges", "factors on the device"), "journal") | {
        "file": "file",
        "file of another dtype": "file",
    }
    assert walker.tiers >= {"backup", best.get(kind, "backup")}
    assert kind.startswith("file") or "file" not in walker.tiers


@pytest.mark.parametrize("mode", ["lazy", "random"])
def test_steps_that_nobody_waits_for(mode, tmp_path, on_device, torch_side, fake_cuda):
    """Each with another arithmetic and way of undoing than the one before."""
    fake_cuda.mode(mode, 7)
    dtype = torch.bfloat16
    model = on_device(every_kind(dtype))
    sources = open_sources(adapters_for(model), tmp_path)
    mirror = Mirror(dtype, sources)
    kinds = [arguments_of(kind, every_kind(dtype), tmp_path) for kind in KINDS]
    steps = [
        step for step in history(5, STEPS, len(sources)) if isinstance(step.argument, list) and step.kind != "fail"
    ]
    for number, step in enumerate(steps):
        entries = [(sources[index], strength) for index, strength in step.argument]
        report = lora_mmap.compose(model, entries, non_blocking=True, **kinds[number % len(kinds)])
        if number % 3 == 0:
            report.wait()
        if number % 4 == 0:
            lora_mmap.set_lora_strength_v2(model, 1.0)
            torch_side.synchronize()
            assert differing(model, mirror.composed(step.argument)) == [], (number, step)
    lora_mmap.reset(model)
    assert is_as(model, every_kind(dtype), torch_side)


@every_dtype
def test_windows_and_parts_of_one_weight(dtype, tmp_path, on_device, torch_side, fake_cuda, monkeypatch):
    monkeypatch.setattr(device_stream, "WINDOW_NBYTES", 1)
    monkeypatch.setattr(device_site, "WINDOW_NBYTES", 1)
    monkeypatch.setattr(device_moves, "WINDOW_NBYTES", 1)
    model = on_device(every_kind(dtype))
    sources = open_sources(adapters_for(model), tmp_path)
    mirror, walker = Mirror(dtype, sources), Walker(model, {}, sources, lora_mmap.open_adapter(overflowing(model)))
    for step in history("parts", 60, len(sources)):
        walker.take(step)
        assert is_as(model, mirror.composed(step.after), torch_side), step


def small(model, seed=1, **more):
    """Deltas that leave most bits of a weight alone."""
    return pairs(model, ["wide", "tall", "conv", "last", "point", "plain"], seed, torch.float16, 0.01, **more)


def flip_lowest_bit(weight, index):
    bits_of(weight.data)[index] ^= 1


CALLS = {
    "reset": lambda model, other: lora_mmap.reset(model),
    "switch": lambda model, other: lora_mmap.compose(model, [(other, 1.0)]),
    "switch to copies": lambda model, other: lora_mmap.compose(model, [(other, 1.0)], restore="backup"),
    "switch to fast": lambda model, other: lora_mmap.compose(model, [(other, 1.0)], numerics="fast"),
    "wait later": lambda model, other: lora_mmap.compose(model, [(other, 1.0)], non_blocking=True).wait(),
    "strength": lambda model, other: lora_mmap.set_lora_strength_v2(model, -0.5),
    "other rows": lambda model, other: lora_mmap.compose(model, [(rows_of(model), 1.0)]),
}


def rows_of(model):
    return pairs(model, ["transformer_blocks.0.attn.to_k", "wide"], 8, torch.float16, 0.01)


@pytest.mark.parametrize("restore", ["auto", "backup"])
@pytest.mark.parametrize("call", CALLS)
@every_dtype
def test_what_somebody_else_wrote_is_left(dtype, call, restore, on_device, torch_side, sha256):
    """One bit is enough. Every weight is left as it is; taken back, the call does what it says."""
    model = on_device(every_kind(dtype))
    first = small(model) | pairs(model, ["transformer_blocks.0.attn.to_q"], 3, torch.float16, 0.01)
    lora_mmap.compose(model, [(first, 1.0)], restore=restore)
    other = small(model, 2)
    for weight, index in [
        (model.wide.weight, (52, 1099)),
        (model.last.weight, (3, 4, 1, 1)),
        (model.transformer_blocks[0].attn.to_qkv.weight, (7, 3)),
    ]:
        torch_side.synchronize()
        flip_lowest_bit(weight, index)
        before = all_bits(model)
        with pytest.raises(ModelError, match=r"'.*weight'.*from row \d+, column \d+ on: somebody else"):
            CALLS[call](model, other)
        torch_side.synchronize()
        assert [name for name, bits in all_bits(model).items() if not torch.equal(bits, before[name])] == []
        flip_lowest_bit(weight, index)
    CALLS[call](model, other)
    lora_mmap.reset(model)
    assert is_as(model, every_kind(dtype), torch_side)


def test_forced(on_device, torch_side):
    """A copy brings its bytes back; a journal leaves what was written but for rounding."""
    for restore, left in (("backup", 0.0), ("journal", 1.0)):
        model, pristine = on_device(every_kind(torch.float32)), every_kind(torch.float32)
        report = lora_mmap.compose(model, [(small(model), 0.01)], restore=restore)
        assert report.tiers["plain"]["tier"] == restore
        torch_side.synchronize()
        model.plain.weight.data[4, 5] += 1
        with pytest.raises(ModelError):
            lora_mmap.reset(model)
        assert lora_mmap.reset(model, force=True)
        torch_side.synchronize()
        found = model.plain.weight[4, 5] - pristine.plain.weight[4, 5]
        torch.testing.assert_close(found, torch.tensor(left), atol=1e-6, rtol=0)
        model.plain.weight.data[4, 5] = pristine.plain.weight[4, 5]
        assert is_as(model, pristine, torch_side)


def test_what_finds_no_room_becomes_a_copy(on_device, torch_side):
    """Of two weights one gets a delta that a journal cannot hold."""
    model = on_device(every_kind(torch.bfloat16))
    tensors = pairs(model, ["wide"], 1, torch.float16, 0.001) | pairs(model, ["tall"], 2, torch.float16, 30.0)
    report = lora_mmap.compose(model, [(tensors, 1.0)])
    assert {name: report.tiers[name]["tier"] for name in ("wide", "tall")} == {"wide": "journal", "tall": "backup"}
    assert _C.cuda_pinned_block_nbytes() >= model.tall.weight.nbytes
    mirror = Mirror(torch.bfloat16, [lora_mmap.open_adapter(tensors)])
    assert is_as(model, mirror.composed([(0, 1.0)]), torch_side)
    lora_mmap.set_lora_strength_v2(model, 1e-4)
    assert is_as(model, mirror.composed([(0, 1e-4)]), torch_side)
    lora_mmap.reset(model)
    assert is_as(model, every_kind(torch.bfloat16), torch_side)


def test_no_device_memory_for_a_journal(on_device, torch_side, monkeypatch):
    """A copy in host memory takes its place."""
    from lora_mmap.cuda import device_record

    model = on_device(every_kind(torch.bfloat16))
    original = device_record.DeviceRecord.__init__

    def scarce(record, rows, cols, dtype, corrections, device):
        if corrections:
            raise torch.OutOfMemoryError
        original(record, rows, cols, dtype, corrections, device)

    monkeypatch.setattr(device_record.DeviceRecord, "__init__", scarce)
    tensors = small(model)
    report = lora_mmap.compose(model, [(tensors, 0.1)])
    assert set(report.restore) == {"backup"}
    assert is_as(model, Mirror(torch.bfloat16, [lora_mmap.open_adapter(tensors)]).composed([(0, 0.1)]), torch_side)
    lora_mmap.reset(model)
    assert is_as(model, every_kind(torch.bfloat16), torch_side)


def test_a_strength_reads_nothing(on_device, torch_side, tmp_path):
    model = on_device(every_kind(torch.bfloat16))
    sources = open_sources(adapters_for(model), tmp_path)
    lora_mmap.compose(model, [(sources[0], 0.1), (sources[4], 0.1)])
    before = _C.counters()
    for strength in (0.5, 0.0, -1.0):
        report = lora_mmap.set_lora_strength_v2(model, strength)
        assert (report.bytes_read, report.headers_parsed, report.keys_classified) == (0, 0, 0)
    assert _C.counters()["bytes_read"] == before["bytes_read"]


@pytest.mark.parametrize("call", ["reset", "switch"])
def test_a_checkpoint_that_changed(call, on_device, torch_side, tmp_path, sha256):
    """Found before anything is written, and said."""
    pristine = every_kind(torch.bfloat16)
    base = save_base(pristine, tmp_path / "base.safetensors")
    model = on_device(every_kind(torch.bfloat16))
    report = lora_mmap.compose(model, [(small(model), 1.0)], base=base)
    assert set(report.restore) == {"file"}
    assert report.memory["restore"] < sum(weight.nbytes for weight in model.parameters()) / 20
    assert _C.cuda_pinned_block_nbytes() == 0
    torch_side.synchronize()
    before, content = sha256(model), base.read_bytes()
    base.write_bytes(content[:-1] + b"x")
    with pytest.raises(ReadError, match="base"):
        CALLS[call](model, small(model, 2))
    torch_side.synchronize()
    assert sha256(model) == before


@pytest.mark.parametrize("restore", ["journal", "backup"])
def test_a_file_that_is_gone(restore, on_device, torch_side, tmp_path, sha256):
    """Copies need none; a journal of ranges says what it lacks, and changes nothing."""
    from adapter_tensors import write

    model = on_device(every_kind(torch.bfloat16))
    path = write(tmp_path / "a.safetensors", small(model))
    other = write(tmp_path / "b.safetensors", small(model, 9))
    lora_mmap.compose(model, [(path, 0.1)], restore=restore, retain="file")
    torch_side.synchronize()
    path.write_bytes(other.read_bytes())
    before = sha256(model)
    if restore == "journal":
        with pytest.raises(ReadError):
            lora_mmap.reset(model)
        torch_side.synchronize()
        assert sha256(model) == before
    else:
        flip_lowest_bit(model.wide.weight, (0, 0))
        flipped = sha256(model)
        with pytest.raises(ModelError):
            lora_mmap.reset(model)
        torch_side.synchronize()
        assert sha256(model) == flipped
        flip_lowest_bit(model.wide.weight, (0, 0))
        lora_mmap.reset(model)
        assert is_as(model, every_kind(torch.bfloat16), torch_side)
