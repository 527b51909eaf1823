"""Pristine values from a file into weights that were fused into: exact, tile by tile, and nothing by halves."""

import os
import threading
import time

import pytest
import torch
from base_values import Beside, bits, random_bits
from faulty_reads import build_faulty_reads
from fusion_reference import WEIGHTS, random_term, same_bits
from other_process import run_python
from safetensors.torch import save_file
from test_base_files_that_change import CHANGES
from undo_steps import layer, record_of, step

from lora_mmap import _C
from lora_mmap.errors import ArgumentError, ReadError

LAYOUTS = {
    "dense": lambda t: t.clone(),
    "row gaps": lambda t: t.new_zeros(t.shape[0], t.shape[1] + 5)[:, 2:-3],
    "transposed": lambda t: t.new_zeros(t.shape[1], t.shape[0]).t(),
    "spread": lambda t: t.new_zeros(2 * t.shape[0], 3 * t.shape[1])[::2, 1::3],
}
SHAPES = [(1, 1), (1, 3000), (3000, 1), (37, 53), (60, 512), (100, 1300), (700, 7)]


class Fused:
    """A weight that terms were fused into, its record, and a file that has what it was."""

    def __init__(self, folder, generator, pristine, layout="dense", stored=None):
        self.pristine = pristine
        self.file = Beside(folder, pristine if stored is None else stored)
        self.weight = LAYOUTS[layout](pristine)
        self.weight.copy_(pristine)
        self.terms = [random_term(generator, *pristine.shape, 3)]
        self.record = record_of(self.weight, corrections=False)
        self.fuse()

    def fuse(self):
        _C.step([step(self.weight, new=layer(self.terms, self.record))], 1)
        self.fused = self.weight.clone()
        assert not same_bits(self.fused, self.pristine)
        assert self.record.written == self.record.tiles

    def item(self, **where):
        return (*self.file.item(self.weight, **where), self.record)

    def restore(self, threads=1, force=False, isa=None, **where):
        return _C.restore_from_file([self.item(**where)], threads, force, isa)

    def restored_tiles(self):
        """How many tiles have their pristine values; all others must have the fused ones."""
        count = 0
        for row in range(0, self.weight.shape[0], self.record.tile_rows):
            for col in range(0, self.weight.shape[1], self.record.tile_cols):
                tile = slice(row, row + self.record.tile_rows), slice(col, col + self.record.tile_cols)
                is_pristine = same_bits(self.weight[tile], self.pristine[tile])
                assert is_pristine or same_bits(self.weight[tile], self.fused[tile]), f"a torn tile at {row}, {col}"
                count += is_pristine
        assert self.record.written == self.record.tiles - count
        return count


def finite(generator, *shape, dtype):
    """Large enough that every tile changes, small enough that none overflows."""
    return torch.randn(*shape, generator=generator).to(dtype)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", WEIGHTS, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_bit_comes_back(generator, isa, layout, dtype, shape, tmp_path):
    pristine = finite(generator, *shape, dtype=dtype)
    special = random_bits(*shape, dtype=dtype)
    pristine = torch.where(torch.rand(shape, generator=generator) < 0.1, special.clamp(-100, 100), pristine)
    case = Fused(tmp_path, generator, pristine, layout)
    assert case.restore(2, isa=isa) == []
    assert same_bits(case.weight, pristine)
    assert case.record.written == 0
    case.weight.copy_(case.fused)
    assert case.restore(isa=isa) == []
    assert same_bits(case.weight, case.fused), "what is undone is left alone"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_another_precision(generator, isa, dtype, stored, tmp_path):
    in_file = finite(generator, 130, 1100, dtype=stored)
    case = Fused(tmp_path, generator, in_file.to(dtype), stored=in_file)
    assert case.restore(2, isa=isa) == []
    assert same_bits(case.weight, case.pristine)


@pytest.mark.parametrize("shape", [(3, 5), (600, 40), (40, 600), (1200, 1300)], ids=str)
@pytest.mark.parametrize("layout", ["dense", "transposed"])
def test_the_file_has_the_transpose(generator, shape, layout, tmp_path):
    pristine = finite(generator, *shape, dtype=torch.float16)
    case = Fused(tmp_path, generator, pristine, layout, stored=pristine.t().contiguous())
    assert case.restore(2, file_strides=(1, shape[0])) == []
    assert same_bits(case.weight, pristine)
    case.weight.copy_(case.pristine)
    case.fuse()
    case.weight[shape[0] - 1, 2] += 1
    row = (shape[0] - 1) // case.record.tile_rows * case.record.tile_rows
    assert case.restore(1, file_strides=(1, shape[0])) == [(0, row, 0)]
    assert case.restore(1, force=True, file_strides=(1, shape[0])) == []
    assert same_bits(case.weight, pristine)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
def test_columns_in_another_order(generator, dtype, tmp_path):
    stored = finite(generator, 70, 1100, dtype=torch.float32)
    order = torch.randperm(1100, generator=generator)
    columns = order.to(torch.int32)
    case = Fused(tmp_path, generator, stored[:, order].to(dtype), stored=stored)
    assert case.restore(2, columns=columns) == []
    assert same_bits(case.weight, case.pristine)


@pytest.mark.parametrize("threads", [1, 2, 200])
def test_many_blocks(generator, threads, tmp_path):
    case = Fused(tmp_path, generator, finite(generator, 1500, 1300, dtype=torch.bfloat16))
    assert case.restore(threads) == []
    assert case.restored_tiles() == case.record.tiles


@pytest.mark.parametrize("place", [(0, 0), (23, 511), (24, 512), (99, 1299)], ids=str)
@pytest.mark.parametrize("layout", ["dense", "transposed"])
def test_one_changed_bit_is_foreign(generator, place, layout, tmp_path):
    case = Fused(tmp_path, generator, finite(generator, 100, 1300, dtype=torch.bfloat16), layout)
    changed = (bits(case.weight)[place] ^ 1).view(torch.bfloat16)
    case.weight[place] = changed
    tile = (place[0] // 24 * 24, place[1] // 512 * 512)
    assert case.restore() == [(0, *tile)]
    assert same_bits(case.weight[place], changed)
    case.weight[place] = case.fused[place]
    done = case.restored_tiles()
    assert done < case.record.tiles
    case.weight[place] = changed
    assert case.restore(force=True) == []
    assert same_bits(case.weight, case.pristine)
    assert case.record.written == 0


def test_foreign_tiles_of_the_right_item(generator, tmp_path):
    cases = []
    for number in range(3):
        (tmp_path / str(number)).mkdir()
        cases.append(Fused(tmp_path / str(number), generator, finite(generator, 50, 600, dtype=torch.float32)))
    cases[1].weight[49, 500] = 7
    assert _C.restore_from_file([case.item() for case in cases], 1) == [(1, 48, 0)]
    assert same_bits(cases[0].weight, cases[0].pristine)
    assert same_bits(cases[2].weight, cases[2].fused)


@pytest.mark.parametrize("countdown", [1, 2, 7, 60])
@pytest.mark.parametrize("threads", [1, 2])
def test_running_out_of_memory(generator, countdown, threads, tmp_path):
    case = Fused(tmp_path, generator, finite(generator, 800, 1300, dtype=torch.float32))
    _C.arm_fault("tile", countdown)
    with pytest.raises(MemoryError):
        case.restore(threads)
    assert case.restored_tiles() < case.record.tiles
    assert case.restore(threads) == []
    assert same_bits(case.weight, case.pristine)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_file_that_changed_since_it_was_compared(generator, change, tmp_path):
    case = Fused(tmp_path, generator, finite(generator, 300, 700, dtype=torch.float16))
    change(case.file.path, case.pristine)
    with pytest.raises(ReadError, match=r"base\.safetensors: the file"):
        case.restore(2)
    assert case.restored_tiles() == 0


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
@pytest.mark.parametrize("delay", [0.0, 0.0003, 0.001, 0.003])
def test_a_file_that_changes_meanwhile(generator, change, delay, tmp_path):
    """Whenever it happens: every tile is one or the other, and a tile that was written has the old file's values."""
    case = Fused(tmp_path, generator, finite(generator, 2000, 3072, dtype=torch.bfloat16))

    def later():
        time.sleep(delay)
        change(case.file.path, case.pristine)

    thread = threading.Thread(target=later)
    thread.start()
    try:
        case.restore(2)
    except ReadError:
        assert case.record.written > 0
    else:
        assert case.record.written == 0
    thread.join()
    case.restored_tiles()


def test_a_replaced_file_is_still_what_was_opened(generator, tmp_path):
    case = Fused(tmp_path, generator, finite(generator, 30, 70, dtype=torch.float16))
    (tmp_path / "new").write_bytes(b"something else")
    os.replace(tmp_path / "new", case.file.path)
    assert case.restore() == []
    assert same_bits(case.weight, case.pristine)


SCRIPT = """
import errno, sys
import numpy as np
from lora_mmap import _C

file = _C.File(sys.argv[1])
header = file.read_header()
rows, cols = 2000, 1024
weight = np.zeros((rows, cols), np.float32)
record = _C.Record(rows, cols, "F32", False)
at = weight.ctypes.data
_C.step([(at, rows, cols, cols, 1, "F32", None, ([], record, 0, 0, 0), None)], 2)
assert record.written == record.tiles
item = (file, header, header.header_nbytes, "F32", cols, 1, 0, at, rows, cols, cols, 1, "F32", record)
try:
    print(_C.restore_from_file([item], 2))
except OSError as error:
    print(errno.errorcode[error.errno])
tiles = [weight[m : m + 24, n : n + 512] == 0 for m in range(0, rows, 24) for n in (0, 512)]
print(record.written, sum(int(tile.all()) for tile in tiles))
print(all(tile.all() or not tile.any() for tile in tiles))
"""


@pytest.mark.parametrize(
    "fault",
    [{"FAULT_SHORT": "70007"}, {"FAULT_EINTR": "1"}, {"FAULT_EIO": "3000000"}],
    ids=["short", "eintr", "eio"],
)
def test_what_the_system_may_do_to_a_read(fault, tmp_path):
    save_file({"a": torch.arange(1, 2000 * 1024 + 1).reshape(2000, 1024).float()}, tmp_path / "x.safetensors")
    done = run_python(SCRIPT, tmp_path / "x.safetensors", LD_PRELOAD=build_faulty_reads(tmp_path), **fault)
    result, counts, whole = done.stdout.splitlines()
    written, fused = map(int, counts.split())
    assert whole == "True", done
    assert written == fused, done
    assert (result, written > 0) == (("EIO", True) if "FAULT_EIO" in fault else ("[]", False)), done
    assert written < 168, "nothing before the fault was restored"


def test_nonsense_is_refused_before_anything_is_written(generator, tmp_path):
    case = Fused(tmp_path, generator, finite(generator, 8, 9, dtype=torch.float32))
    good = case.item()
    for bad, words in [
        ((*good[:-1], None), "item 1: no record"),
        ((*good[:-1], _C.Record(9, 8, "F32", False)), "the record is of 9 x 8 F32, the weight of 8 x 9 F32"),
        ((*good[:-1], _C.Record(8, 9, "F16", False)), "the record is of 8 x 9 F16"),
        ((None, *good[1:]), "no file"),
        (good[:-1], "not a tuple of 14"),
    ]:
        with pytest.raises(ArgumentError, match=words):
            _C.restore_from_file([good, bad], 1)
    with pytest.raises(ArgumentError, match="threads is 0"):
        _C.restore_from_file([good], 0)
    assert case.restored_tiles() == 0
    assert _C.restore_from_file([], 1) == []
