"""Values of a checkpoint beside weights: every layout, every block, one bit."""

import pytest
import torch
from base_values import Beside, bits, random_bits

from lora_mmap import _C
from lora_mmap.errors import ArgumentError

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
LAYOUTS = {
    "dense": lambda t: t.clone(),
    "row gaps": lambda t: t.new_zeros(t.shape[0], t.shape[1] + 5)[:, 2:-3],
    "transposed": lambda t: t.new_zeros(t.shape[1], t.shape[0]).t(),
    "spread": lambda t: t.new_zeros(2 * t.shape[0], 3 * t.shape[1])[::2, 1::3],
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(1, 1), (1, 700), (700, 1), (97, 45)], ids=str)
def test_layouts(layout, dtype, shape, tmp_path):
    values = random_bits(*shape, dtype=dtype)
    file = Beside(tmp_path, values)
    weight = LAYOUTS[layout](values)
    weight.copy_(values)
    assert file.equals(weight)
    row, col = shape[0] - 1, shape[1] // 2
    bits(values)[row, col] ^= 1
    weight.copy_(values)
    assert not file.equals(weight)
    untouched = outside(weight)
    file.read(weight)
    bits(values)[row, col] ^= 1
    assert torch.equal(bits(weight), bits(values))
    assert torch.equal(outside(weight), untouched), "bytes between the elements changed"


def outside(weight):
    """The bits of the storage with the weight's own elements zeroed."""
    whole = torch.empty(0, dtype=weight.dtype).set_(weight.untyped_storage()).clone()
    whole.as_strided(weight.shape, weight.stride(), weight.storage_offset()).zero_()
    return bits(whole)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("threads", [1, 3, 200])
def test_many_blocks(layout, threads, tmp_path):
    """4 MiB, so that there are several blocks on any number of threads, and one bit anywhere is found."""
    values = random_bits(1000, 2100, dtype=torch.bfloat16)
    file = Beside(tmp_path, values)
    weight = LAYOUTS[layout](values)
    assert torch.equal(bits(file.read(weight, threads)), bits(values))
    assert file.equals(weight, threads)
    for row, col in ((0, 0), (0, 2099), (511, 1024), (999, 0), (999, 2099)):
        changed = weight[row : row + 1, col : col + 1]
        kept = changed.clone()
        changed.copy_((bits(kept) ^ 0x4000).view(torch.bfloat16))
        assert not file.equals(weight, threads)
        changed.copy_(kept)
    assert file.equals(weight, threads)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_rows_longer_than_a_block(dtype, tmp_path):
    values = random_bits(3, 700_000, dtype=torch.float32).nan_to_num()
    file = Beside(tmp_path, values)
    weight = values.to(dtype)
    assert file.equals(weight, 2)
    assert torch.equal(bits(file.read(torch.zeros_like(weight), 2)), bits(weight))
    bits(weight)[1, 650_001] ^= 1
    assert not file.equals(weight, 2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("shape", [(20, 31), (700, 900)], ids=str)
def test_the_file_has_the_transpose(shape, dtype, tmp_path):
    """transformers' Conv1D: rows of the weight are columns of the file."""
    rows, cols = shape
    values = random_bits(cols, rows, dtype=torch.float16).nan_to_num()
    file = Beside(tmp_path, values)
    weight = values.to(dtype)
    where = {"rows": rows, "cols": cols, "file_strides": (1, rows)}
    assert file.equals(weight.t(), 2, **where)
    dense = torch.zeros(rows, cols, dtype=dtype)
    assert torch.equal(bits(file.read(dense, 2, **where)), bits(weight.t()))
    bits(weight)[cols - 1, 3] ^= 1
    assert not file.equals(weight.t(), 2, **where)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_columns_in_another_order(dtype, tmp_path):
    source = dtype if dtype == torch.float64 else torch.float32
    values = random_bits(60, 9000, dtype=source, seed=2).nan_to_num()
    order = torch.randperm(9000, generator=torch.Generator().manual_seed(3))
    columns = order.to(torch.int32)
    file = Beside(tmp_path, values)
    weight = values[:, order].to(dtype)
    assert file.equals(weight, 2, columns=columns)
    assert torch.equal(bits(file.read(torch.zeros_like(weight), 2, columns=columns)), bits(weight))
    part = weight[:, 100:230]
    assert file.equals(part, columns=columns[100:])
    assert not file.equals(part, columns=columns[101:])


def test_a_rectangle_of_a_larger_tensor(tmp_path):
    values = random_bits(50, 60, dtype=torch.float32)
    file = Beside(tmp_path, values)
    part = values[7:19, 11:40].clone()
    assert file.equals(part, first=7 * 60 + 11)
    assert not file.equals(part, first=7 * 60 + 12)
    assert torch.equal(bits(file.read(torch.zeros_like(part), first=7 * 60 + 11)), bits(part))


def test_items_are_told_apart(tmp_path):
    values = random_bits(300, 1000, dtype=torch.float16)
    file = Beside(tmp_path, values)
    weights = [values.clone() for _ in range(9)]
    for number in (0, 4, 8):
        bits(weights[number])[299, 999] ^= 1
    items = [file.item(weight) for weight in weights]
    assert _C.equals_file(items, 3) == [number not in (0, 4, 8) for number in range(9)]
    _C.read_converted(items, 3)
    assert _C.equals_file(items, 3) == [True] * 9
    assert _C.equals_file([], 1) == []


def test_after_a_difference_no_more_is_read(tmp_path):
    values = random_bits(4000, 2000, dtype=torch.float16)
    file = Beside(tmp_path, values)
    other = values.clone()
    bits(other)[0, 0] ^= 1
    before = file.source.file.bytes_read
    assert not file.equals(other)
    assert file.source.file.bytes_read - before <= 2 << 20


def test_nonsense_is_refused_before_anything_is_written(tmp_path):
    values = random_bits(4, 6, dtype=torch.float32)
    file = Beside(tmp_path, values)
    weight = torch.ones(4, 6)
    good = file.item(weight)
    columns = torch.tensor([0, 1, 2, 3, 4, -1], dtype=torch.int32)

    def changed(**fields):
        names = ["file", "header", "offset", "file_dtype", "file_row", "file_col", "columns", "address", "rows"]
        names += ["cols", "row", "col", "dtype"]
        return tuple(fields.get(name, value) for name, value in zip(names, good, strict=True))

    for bad, words in [
        (changed(file=None), "no file"),
        (changed(header=None), "no header"),
        (changed(file_dtype="I32"), "no conversion from I32 to F32"),
        (changed(file_dtype="F64"), "no conversion from F64 to F32"),
        (changed(dtype="U8"), "a weight of type U8"),
        (changed(dtype="float"), "unknown dtype 'float'"),
        (changed(file_row=7, file_col=3), "expected one of 1"),
        (changed(file_col=0), "below 1"),
        (changed(file_row=-6), "below 1"),
        (changed(rows=-1), "negative size"),
        (changed(address=0), "null pointer"),
        (changed(col=0), "a stride of the weight is 0"),
        (changed(columns=columns.data_ptr()), "a map with column -1"),
        (changed(offset=file.source.file.size), "no 96 bytes at offset"),
        (changed(rows=5), "no 120 bytes at offset"),
        (changed(file_row=2**62), r"beyond 2\^63 bytes"),
    ]:
        for call in (_C.equals_file, _C.read_converted):
            with pytest.raises(ArgumentError, match=words):
                call([good, bad], 1)
    assert torch.equal(weight, torch.ones(4, 6))
    with pytest.raises(ArgumentError, match=r"\[equals_file\] threads is 0"):
        _C.equals_file([good], 0)
    _C.read_converted([changed(rows=0, address=0)], 1)
