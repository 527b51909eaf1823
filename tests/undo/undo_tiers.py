"""The ways to take adapters out again that this build has, each as the arguments that ``compose`` is given."""

from dataclasses import dataclass, field

import pytest
import torch
from base_checkpoints import save_base

from lora_mmap.restore import TIERS


@dataclass(frozen=True)
class Tier:
    """``restore`` as ``compose`` takes it; with ``base`` the weights also stand in a checkpoint file, of
    ``base_dtype`` if that is given."""

    name: str
    restore: str
    base: bool = False
    base_dtype: torch.dtype | None = None
    more: dict = field(default_factory=dict)

    @property
    def uses(self):
        """The tiers that a report has to name where weights of all kinds and adapters of all sizes meet. What a journal
        or a file cannot give back is copied."""
        best = self.restore if self.restore != "auto" else "file" if self.base else "journal"
        return {best, "backup"} if best in TIERS else {"backup"}

    def arguments(self, pristine, folder):
        """Keyword arguments of ``compose`` for a model whose pristine weights are those of ``pristine``."""
        if not self.base:
            return {"restore": self.restore, **self.more}
        path = save_base(pristine, folder / f"{self.name.replace(' ', '_')}.safetensors", self.base_dtype)
        return {"restore": self.restore, "base": path, **self.more}


_KNOWN = [
    Tier("auto", "auto"),
    Tier("backup", "backup"),
    Tier("journal", "journal"),
    Tier("journal of ranges", "journal", more={"retain": "file"}),
    Tier("file", "file", base=True),
    Tier("auto beside a base", "auto", base=True),
    Tier("file of another dtype", "file", base=True, base_dtype=torch.float32),
]


BUILT = [tier for tier in _KNOWN if {tier.restore, *(["file"] if tier.base else [])} <= set(TIERS)]

every_tier = pytest.mark.parametrize("tier", BUILT, ids=lambda tier: tier.name)

# Without those that are a choice among the others.
one_of_each_tier = pytest.mark.parametrize(
    "tier", [tier for tier in BUILT if tier.restore != "auto" and tier.base_dtype is None], ids=lambda tier: tier.name
)
