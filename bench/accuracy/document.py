"""docs/algorithms.md: what is fused, how exactly, beside whom, and what is not."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from pathlib import Path

from .error import Error
from .figures import Figures

PATH = Path(__file__).resolve().parents[2] / "docs" / "algorithms.md"
HEADER = "| algorithm | tensors of a module | peer | BF16: ours | peer's | F32: ours | peer's | of the bound | note |"

_BEGIN = """# Algorithms

What lora_mmap fuses, how far the weights are from the published formula, and how far the peer's own merged weights are.
`python -m bench.accuracy` makes this page; [numerics.md](numerics.md) has the arithmetic and its bound.

Every row is an adapter that the peer itself made, filled at random and saved ({versions}), on layers of
odd sizes, at strength 1. The reference is the formula in extended precision (80 bits on x86), written independently of
lora_mmap and of the peers, with which it agrees in float64. Each figure is the largest over all parameters of the row:

- *ulp*: the largest distance of an element from the reference, in units of the dtype's spacing there. 0.5 is perfect
  rounding. Where weight and change cancel, the spacing at the small result is much finer than what any fp32 sum of larger
  terms can give, so fp32 weights show many ulp at single elements, and so do peers that round twice.
- the second figure is ||W' - reference|| / ||reference||, of the parameter where it is largest.
- *of the bound*: the largest share of the contract's bound, `ulp(W') + R * 2^-24 * sum |terms|` (float64: 2^-53), that an
  element of ours takes, over F16, BF16, F32 and F64 weights. R counts the roundings on the longest way of a term into the
  element: LoRA rank + 2, LoHa r1 + r2 + 3, LoKr r1 + r2 + 3 (a whole factor: 0), a Tucker core its rank more, a full
  difference 2, (IA)3 3, DoRA 5 more than what it is over.

"""

_END = """
## What else holds

`tests/algorithms` holds every algorithm, on Linear, convolutions of one to three dimensions (contiguous and
channels_last), transformers' Conv1D, embeddings and normalisations, weights of F16, BF16, F32 and F64, factors of these
and of 8 bits, and several adapters of different algorithms on one module, within the same bound.

- **Strength.** All algorithms but PEFT's DoRA are linear in it. DoRA with `dora_scale` goes a part of the way,
  `W0 + s * (W' - W0)`, as ComfyUI does; LyCORIS' own multiplier leaves the change of direction whole and scales that of the
  norms only, so the two are equal at strength 1. PEFT's strength scales what changes the direction, and the norms
  become the magnitudes at any strength.
- **Several adapters.** Each starts from the pristine weight and all changes add up. PEFT merges DoRA adapters one after the
  other, each multiplying what the one before it left; that depends on their order and is not what is done here.
- **Peers, where they differ.** LyCORIS' `merge_to` multiplies LoHa and LoKr by alpha / rank twice, its forward pass once;
  the forward pass is what was trained, and the rows above are held against it. PEFT's `scale_layer`, and so diffusers'
  `fuse_lora(lora_scale=...)`, leaves embeddings at strength 1. PEFT's LoHa computes its scale in fp32 whatever the dtype.

## What is not fused

Files of these are recognised, their keys are reported as unsupported with the reason, and the rest of the file is applied.

| algorithm | why not |
|---|---|
| OFT, BOFT (LyCORIS, kohya, PEFT) | they rotate the weight: a product with it and no sum of terms |
| GLoRA (LyCORIS, PEFT) | `W @ a1 @ a2` takes whole rows of the weight for every element |
| (IA)3 as PEFT writes it | multiplies the weight, and for convolutions only the configuration tells by which side |
| AdaLoRA | PEFT divides by a rank that training changed and the file does not hold |
| VeRA, RandLoRA, FourierFT, VB-LoRA, UniLoRA and other tuners of PEFT with shared or generated tensors | what a module gets depends on tensors that are not the module's own, or on a generator's seed |
| T-LoRA | relative to values at the start of training that are not in the file |
| KaSA | starts from a weight without its smallest singular values |
| LyCORIS' sparse biases, `scalar` | nobody has been seen to write them |
| `reshape_weight` | the weight would need another shape |
| `modules_to_save` | a whole module, which no strength can scale |
| files packed for Nunchaku's kernels | rows and columns are permuted for one kernel |
"""


def document(rows: Sequence[Figures]) -> str:
    packages = ("peft", "lycoris-lora", "diffusers", "torch")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
    lines = [HEADER, "|" + "---|" * (HEADER.count("|") - 1), *map(_line, rows)]
    return _BEGIN.format(versions=versions) + "\n".join(lines) + "\n" + _END


def _line(row: Figures) -> str:
    figures = [_cell(errors[dtype]) for dtype in ("BF16", "F32") for errors in (row.ours, row.theirs)]
    cells = (*identity(row.specimen.algorithm, row.specimen.tensors, row.specimen.peer), *figures)
    return f"| {' | '.join(cells)} | {row.of_bound:.2f} | {row.specimen.note} |"


def identity(*cells: str) -> tuple[str, ...]:
    """What tells a row from the others, as it stands in the table: a bar inside a cell would end it."""
    return tuple(cell.replace("|", "\\|") for cell in cells)


def _cell(error: Error) -> str:
    return f"{error.ulps:.3g} ulp, {error.norm:.1e}"
