import os
import subprocess
import sys

import pytest
import torch
from fusion_reference import job, random_tensor, random_term, same_bits
from term_kinds import AnyTerm, Matrix

from lora_mmap import _C
from lora_mmap.errors import ArgumentError


def changed(template, **fields):
    names = ["weight", "base", "rows", "cols", "wr", "wc", "br", "bc", "dtype", "terms"]
    return tuple(fields.get(n, v) for n, v in zip(names, template, strict=True))


def term_changed(term, index, value):
    return (*term[:index], value, *term[index + 1 :])


def test_nonsense_is_refused_before_anything_is_written(generator):
    w = random_tensor(generator, 4, 8, torch.float16)
    before = w.clone()
    good = job(w, [kept := random_term(generator, 4, 8, 2)])
    term = good[9][0]
    bad = [
        changed(good, weight=0),
        changed(good, base=0),
        changed(good, rows=-1),
        changed(good, cols=-5),
        changed(good, wr=0),
        changed(good, bc=0),
        changed(good, dtype="I32"),
        changed(good, dtype="F8_E4M3"),
        changed(good, dtype="half"),
        changed(good, terms=7),
        changed(good, terms=[term[:-1]]),
        *(changed(good, terms=[term_changed(term, i, v)]) for i, v in [(0, 0), (4, 0), (8, -2), (1, "I8"), (5, "F4")]),
        good[:-1],
        list(good),
    ]
    for one in bad:
        with pytest.raises(ArgumentError, match=r"\[fuse\]"):
            _C.fuse([good, one], 1)
    for threads in (0, -1):
        with pytest.raises(ArgumentError, match="threads"):
            _C.fuse([good], threads)
    with pytest.raises(TypeError):
        _C.fuse([changed(good, rows="4")], 1)
    assert same_bits(w, before)
    assert kept.down.shape == (2, 8)


def test_terms_that_make_no_sense(generator):
    w = random_tensor(generator, 4, 8, torch.float16)
    before = w.clone()
    whole = Matrix(random_tensor(generator, 4, 8, torch.float16))
    gain = Matrix(torch.ones(4, 1).as_strided((4, 8), (1, 0)))
    good = AnyTerm(whole, 1.0, whole, gain).as_tuple()
    matrix, times = whole.as_tuple(), gain.as_tuple()
    for term, message in [
        ((*matrix, 1.0, None, None), "tuple of 12"),
        (term_changed(good, 0, 0), "null pointer"),
        (term_changed(good, 8, -2), "rank is -2"),
        (term_changed(good, 12, matrix[:-1]), "tuple of 11"),
        (term_changed(good, 12, term_changed(matrix, 0, 0)), "null pointer"),
        (term_changed(good, 12, term_changed(matrix, 1, "I8")), "a factor of type I8"),
        (term_changed(good, 12, "weight"), "tuple of 11"),
        (term_changed(good, 12, "base"), "times the base with a gain"),
        (term_changed(good, 13, term_changed(times, 1, "F16")), "a gain of type F16, expected F32"),
        (term_changed(good, 13, term_changed(times, 3, 1)), "two strides"),
        (term_changed(good, 13, term_changed(times, 8, 1)), "null pointer"),
        (term_changed(good, 13, term_changed(times, 8, 0)), "a gain of rank 0, expected -1"),
    ]:
        with pytest.raises(ArgumentError, match=rf"\[fuse\] .*{message}"):
            _C.fuse([job(w, []), changed(job(w, []), terms=[good, term])], 1)
    assert same_bits(w, before)


def test_isa():
    assert _C.isas()[-1] == "scalar"
    assert _C.isa() in _C.isas()
    with pytest.raises(ArgumentError, match="scalar"):
        _C.fuse([], 1, "abacus")


@pytest.mark.parametrize("value", ["scalar", "abacus", ""])
def test_isa_from_the_environment(value):
    code = "from lora_mmap import _C; print(_C.isa())"
    environment = {**os.environ, "LORA_MMAP_ISA": value}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    if value == "abacus":
        assert "ArgumentError" in done.stderr
        assert "LORA_MMAP_ISA" in done.stderr
    else:
        assert done.stdout.strip() == (value or _C.isas()[0])
