"""The rows of the table: every specimen at several dtypes, both errors, and what a reader has to know beside them."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from . import measurement
from .error import Error
from .specimens import Specimen

DTYPES = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64}


@dataclass(frozen=True)
class Figures:
    """The largest errors of one specimen over all of its parameters, by dtype, at strength 1."""

    specimen: Specimen
    ours: Mapping[str, Error]
    theirs: Mapping[str, Error]

    @property
    def of_bound(self) -> float:
        """Ours, at the dtype where it is largest."""
        return max(error.of_bound for error in self.ours.values())


def figures(specimens: Iterable[Specimen], folder: Path, dtypes: Iterable[str] = DTYPES) -> Iterator[Figures]:
    """Writes, fuses and measures one specimen after another."""
    names = list(dtypes)
    for number, specimen in enumerate(specimens):
        own = folder / str(number)
        own.mkdir(parents=True)
        written = specimen.write(own)
        ours: dict[str, Error] = {}
        theirs: dict[str, Error] = {}
        for name in names:
            pristine = nn.Module.to(copy.deepcopy(written.base), DTYPES[name])
            for errors, weights in (
                (ours, measurement.fused(written, pristine)),
                (theirs, measurement.merged(written, pristine)),
            ):
                errors[name] = measurement.largest(measurement.errors(written, pristine, weights))
        yield Figures(specimen, ours, theirs)


def all_specimens() -> list[Specimen]:
    """Of all peers; imports them."""
    return [specimen for peer in measurement.PEERS for specimen in measurement.specimens(peer)]
