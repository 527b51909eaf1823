"""What stops a step: no memory, somebody else's writes, nonsense. Nothing of a tile is half done."""

import pytest
import torch
from fusion_reference import bits, expected, random_tensor, random_term, same_bits
from term_kinds import AnyTerm, Matrix
from undo_steps import layer, record_of, step

from lora_mmap import _C
from lora_mmap.errors import ArgumentError

SHAPE = (60, 1100)  # nine tiles
TILES = 9


@pytest.fixture
def switch(generator):
    """A weight in its old state, how it becomes the new one, both states, and the terms, which have to live on."""
    weight = random_tensor(generator, *SHAPE, torch.float16)
    pristine = weight.clone()
    one, other = ([random_term(generator, *SHAPE, rank)] for rank in (3, 5))
    old, new = layer(one, record_of(weight)), layer(other, record_of(weight))
    _C.step([step(weight, new=old)], 1)
    return weight, pristine, old, new, expected(pristine, one)[0], expected(pristine, other)[0], (one, other)


@pytest.mark.parametrize("point", ["tile", "encode"])
@pytest.mark.parametrize("threads", [1, 3])
def test_a_switch_that_fails_anywhere_is_taken_back_or_goes_on(isa, switch, point, threads):
    weight, pristine, old, new, before, after, _ = switch
    for countdown in range(1, TILES + 1):
        _C.arm_fault(point, countdown)
        with pytest.raises(MemoryError):
            _C.step([step(weight, old, new)], threads, isa)
        assert old[1].written + new[1].written == TILES
        if countdown % 2:
            assert _C.step([step(weight, new, old)], threads, isa) == ([], [])
            assert same_bits(weight, before)
            new = layer_again(new, weight)
        else:
            assert _C.step([step(weight, old, new)], threads, isa) == ([], [])
            assert same_bits(weight, after)
            _C.step([step(weight, new, old)], threads, isa)
            new = layer_again(new, weight)
    _C.step([step(weight, old)], threads, isa)
    assert same_bits(weight, pristine)


def layer_again(new, weight):
    """The same terms with a record that knows nothing."""
    return (new[0], record_of(weight), *new[2:])


def test_a_failed_fuse_leaves_whole_tiles(isa, switch):
    weight, pristine, old, new, *_ = switch
    _C.step([step(weight, old)], 1, isa)
    _C.arm_fault("encode", 4)
    with pytest.raises(MemoryError):
        _C.step([step(weight, new=new)], 1, isa)
    assert new[1].written == 3
    _C.step([step(weight, new)], 1, isa)
    assert same_bits(weight, pristine)


def test_memory_that_runs_out_once_a_tile_is_written_costs_nothing(isa, switch):
    """What was encoded then stays where it was."""
    weight, pristine, old, new, before, after, _ = switch
    sizes = set()
    for countdown in range(TILES + 1):
        new = layer_again(new, weight)
        _C.arm_fault("fit", countdown)
        assert _C.step([step(weight, old, new)], 1, isa) == ([], [])
        assert same_bits(weight, after)
        sizes.add(new[1].nbytes)
        assert _C.step([step(weight, new, old)], 1, isa) == ([], [])
        assert same_bits(weight, before)
    assert len(sizes) == 1
    _C.step([step(weight, old)], 1, isa)
    assert same_bits(weight, pristine)


def test_a_replay_allocates_nothing(isa, switch):
    weight, _, old, new, _, after, _ = switch
    _C.step([step(weight, old, new)], 1, isa)
    held = new[1].nbytes
    _C.step([step(weight, new)], 1, isa)
    _C.arm_fault("encode", 1)
    assert _C.step([step(weight, new=new)], 2, isa) == ([], [])
    assert same_bits(weight, after)
    assert new[1].nbytes == held


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("cols", [512, 513])
def test_one_changed_bit_is_found_wherever_it_is(generator, isa, dtype, cols):
    rows = 24
    weight = random_tensor(generator, rows, cols, dtype)
    terms = [random_term(generator, rows, cols, 2)]
    pristine = weight.clone()
    record = record_of(weight, corrections=False)
    old = layer(terms, record, pristine)
    _C.step([step(weight, new=layer(terms, record))], 1, isa)
    width = dtype.itemsize * 8
    flat = bits(weight).view(-1)
    for at in {0, 1, 63, 64, 255, cols - 1, rows * cols - 1} | set(range(7, rows * cols, 997)):
        for bit in range(0, width, 5 if at % 2 else 7):
            was = int(flat[at])
            flat[at] = was ^ (-(2 ** (width - 1)) if bit == width - 1 else 1 << bit)
            fused = weight.clone()
            row, col = divmod(at, cols)
            assert _C.step([step(weight, old)], 1, isa) == ([], [(0, 0, col // 512 * 512)]), (row, col, bit)
            assert record.written in (record.tiles, record.tiles - 1)
            tile = slice(col // 512 * 512, col // 512 * 512 + 512)
            assert same_bits(weight[:, tile], fused[:, tile])
            flat[at] = was
            _C.step([step(weight, new=layer(terms, record))], 1, isa)


def test_the_same_value_with_another_sign_everywhere_is_found(generator, isa):
    weight = random_tensor(generator, 24, 512, torch.float32)
    term = random_term(generator, 24, 512, 2)
    old = layer([term], record_of(weight))
    _C.step([step(weight, new=old)], 1, isa)
    weight.neg_()
    assert _C.step([step(weight, old)], 1, isa)[1] == [(0, 0, 0)]


def test_foreign_tiles_of_several_steps(generator):
    weights = [random_tensor(generator, *SHAPE, torch.float16) for _ in range(3)]
    terms = [random_term(generator, *SHAPE, 2) for _ in weights]
    layers = [layer([term], record_of(weight)) for term, weight in zip(terms, weights, strict=True)]
    _C.step([step(w, new=new) for w, new in zip(weights, layers, strict=True)], 2)
    weights[1][30, 600] += 1
    overflowed, foreign = _C.step([step(w, old) for w, old in zip(weights, layers, strict=True)], 1)
    assert (overflowed, foreign) == ([], [(1, 24, 512)])
    assert layers[2][1].written == TILES


def test_force_undoes_what_is_there(switch, isa):
    weight, pristine, old, *_ = switch
    weight[30, 600] += 1
    assert _C.step([step(weight, old)], 1, isa, force=True) == ([], [])
    wrong = bits(weight) != bits(pristine)
    assert wrong.sum() <= 1
    assert not wrong[:30].any()


def test_overflows_are_reported_and_come_back(generator, isa):
    weights = [torch.full((30, 600), 60000.0, dtype=torch.float16) for _ in range(2)]
    terms = [random_term(generator, 30, 600, 1, scale=s) for s in (0.0, 1e4)]
    layers = [layer([t], record_of(w)) for t, w in zip(terms, weights, strict=True)]
    assert _C.step([step(w, new=n) for w, n in zip(weights, layers, strict=True)], 2, isa) == ([1], [])
    assert _C.step([step(w, n) for w, n in zip(weights, layers, strict=True)], 2, isa) == ([], [])
    assert all(bool((w == 60000).all()) for w in weights)


def argument_cases():
    whole = AnyTerm(Matrix(torch.ones(2, 3)), 1.0, "base")
    weight = torch.ones(2, 3)
    record = record_of(weight)
    plain = step(weight, new=layer([], record))
    yield "neither old nor new", step(weight)
    yield "a record of 2 x 4", step(weight, new=layer([], _C.Record(2, 4, "F32", True)))
    yield "a record of 2 x 3 F16", step(weight, new=layer([], _C.Record(2, 3, "F16", True)))
    yield "neither corrections nor pristine", step(weight, layer([], record_of(weight, False)))
    yield "need the base, and no pristine", step(weight, layer([whole], record))
    yield "corrections for terms that need the base", step(weight, new=layer([whole], record))
    yield "an out takes", step(weight, new=layer([], record), out=weight)
    yield "null pointer", (0, *plain[1:])
    yield "a stride of the weight is 0", (*plain[:3], 0, *plain[4:])
    yield "negative size", (plain[0], -1, *plain[2:])
    yield "a weight of type U8", (*plain[:5], "U8", *plain[6:])
    yield "unknown dtype", (*plain[:5], "F17", *plain[6:])
    yield "new without a Record", (*plain[:7], ([], None, 0, 0, 0), None)
    yield "not a tuple of 9", plain[:8]
    yield "a record is used twice", step(weight, layer([], record), layer([], record))


@pytest.mark.parametrize(("message", "given"), list(argument_cases()), ids=lambda v: v if isinstance(v, str) else "")
def test_nonsense_is_refused(message, given):
    with pytest.raises(ArgumentError, match=message) as raised:
        _C.step([given], 1)
    assert str(raised.value).startswith("[step] ")


def test_other_nonsense():
    with pytest.raises(ArgumentError, match="threads is 0"):
        _C.step([], 0)
    with pytest.raises(ArgumentError, match="F64"):
        _C.Record(1, 1, "F64", True)
    with pytest.raises(ArgumentError, match="-1 x 1"):
        _C.Record(-1, 1, "F16", True)
    with pytest.raises(ArgumentError, match="no point"):
        _C.arm_fault("nowhere", 1)
    with pytest.raises(ArgumentError, match="threads is 0"):
        _C.hash_bytes(0, 0, 0)


def test_hash_of_bytes():
    data = torch.arange(3_000_001, dtype=torch.int64).to(torch.uint8)
    whole = _C.hash_bytes(data.data_ptr(), data.numel(), 3)
    assert whole == _C.hash_bytes(data.data_ptr(), data.numel())
    hashes = {whole, _C.hash_bytes(data.data_ptr(), data.numel() - 1)}
    for at in (0, 1, 1_048_575, 1_048_576, 3_000_000):
        data[at] ^= 16
        hashes.add(_C.hash_bytes(data.data_ptr(), data.numel()))
        data[at] ^= 16
    assert len(hashes) == 7


def test_forgotten_corrections_leave_the_hashes(switch, isa):
    weight, pristine, old, *_ = switch
    held = old[1].nbytes
    old[1].forget_corrections()
    assert not old[1].has_corrections
    assert old[1].nbytes < held
    with pytest.raises(ArgumentError, match="neither corrections"):
        _C.step([step(weight, old)], 1, isa)
    copy = (old[0], old[1], pristine.data_ptr(), *pristine.stride())
    assert _C.step([step(weight, copy)], 2, isa) == ([], [])
    assert same_bits(weight, pristine)
