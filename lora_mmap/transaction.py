"""One composition as a transaction: every weight ends in the new state, or every weight keeps the bytes it had."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import torch

from . import _C, fault_points
from .adapter import Adapter
from .anchors import Anchors
from .device_site import DeviceSite
from .errors import ClosedError, ReadError
from .factor_store import FactorStore
from .held import Held
from .host_site import HostSite
from .interrupts import HeldInterrupts
from .plan import Plan
from .site import Manner, Site
from .targets.branch_site import BranchSite
from .targets.held_branch import HeldBranch

# Stages every report has, done or not.
_STAGES = ("read", "save", "fuse", "restore")


class Former:
    """What the model holds before a transaction: weights, by address, and ``branches``, by module; the adapters of its
    entries, their factors."""

    def __init__(
        self,
        held: Mapping[int, Held],
        branches: Mapping[int, HeldBranch],
        adapters: Sequence[Adapter],
        store: FactorStore,
    ) -> None:
        self.held = held
        self.branches = branches
        self.adapters = adapters
        self.store = store


class Transaction:
    """Writes pristine + sum of all terms into the weights of ``plan`` and makes those pristine that only the former
    composition had touched. ``store`` receives the factors, and has those that need not be read.

    :meth:`launch`, then :meth:`finish`; both with interrupts held. After an error of either every weight holds the
    bytes it held before: ReadError (a file changed or ended early), FusionOverflowError (a result is not finite),
    ModelError (somebody else wrote to a weight), CudaError, MemoryError, whatever interrupted it.
    """

    def __init__(self, plan: Plan, former: Former, store: FactorStore, manner: Manner) -> None:
        self._plan = plan
        self._former = former
        self._manner = manner
        self._store = store
        self._recalled_nbytes = 0
        held = [held.geometry for held in former.held.values()]
        self._anchors = Anchors([*(weight.geometry for weight in plan.weights.values()), *held])
        replayable = self._recall()
        self._sites = [self._site(device, store, replayable) for device in self._devices()]
        self._branches = self._branch_site(store)

    def launch(self, interrupts: HeldInterrupts) -> None:
        """Reads every factor and fuses, or tells the GPUs to; an overflow on the CPU is found here."""
        for site in self._sites:
            site.check_unchanged()
        try:
            for site in self._sites:
                for window in site.windows:
                    site.fuse(window)
                    interrupts.check()
                site.seal()
            for site in self._sites:
                site.check_unchanged()
            interrupts.check()
        except BaseException:
            self.roll_back()
            raise

    def restore_left(self, interrupts: HeldInterrupts, undoable: bool) -> None:
        """Makes those weights pristine that only the former composition had touched. ``undoable`` where :meth:`finish`
        may still fail."""
        for site in self._sites:
            for _ in site.restore(undoable):
                interrupts.check()

    @property
    def is_asynchronous(self) -> bool:
        """True when a GPU does some of it, so that :meth:`finish` may wait and may fail."""
        return any(site.is_asynchronous for site in self._sites)

    @property
    def is_done(self) -> bool:
        """True when :meth:`finish` would not wait for a GPU."""
        return all(site.is_done() for site in self._sites)

    def finish(self) -> None:
        """Waits for the GPUs; an overflow there is found here. Weights that were moved since :meth:`launch` get what
        is written late, or taken back, all the same."""
        try:
            for site in self._sites:
                self._anchors.carry_over(geometry.address for geometry in site.finish())
        except BaseException:
            self.roll_back()
            self._anchors.carry_over()
            raise

    def roll_back(self) -> None:
        """Brings back what the weights held before :meth:`launch`."""
        for site in self._sites:
            site.roll_back()

    def kept(self) -> dict[int, Held]:
        """What the weights hold now, by address."""
        return {address: one for site in self._sites for address, one in site.kept().items()}

    def kept_branches(self) -> dict[int, HeldBranch]:
        """What the branches of modules hold now, by module."""
        return {} if self._branches is None else self._branches.kept_branches()

    def settle(self) -> None:
        """Nothing will be taken back any more."""
        for site in self._sites:
            site.settle()

    def forget(self) -> None:
        """Lets go of the model's weights, and of what would undo this transaction."""
        self._plan.forget_weights()
        self._sites.clear()
        self._branches = None
        self._anchors.let_go()

    def seconds(self) -> dict[str, float]:
        """Time per stage over all devices, which work one after the other."""
        total = dict.fromkeys(_STAGES, 0.0)
        for site in self._sites:
            for stage, seconds in site.seconds.items():
                total[stage] = total.get(stage, 0.0) + seconds
        return total

    def memory(self) -> dict[str, int]:
        """Bytes that the transaction needed, by kind. What is ``pinned`` stays for the next one."""
        pinned = _C.cuda_pinned_nbytes() if self.is_asynchronous else 0
        total = Counter({"staging": 0, "arena": 0, "pinned": pinned, "transient": 0})
        for site in self._sites:
            total.update(site.memory())
        return dict(total)

    @property
    def read_nbytes(self) -> int:
        """Bytes of factors read from files."""
        return self._recalled_nbytes + self._store.read_nbytes

    def _devices(self) -> list[torch.device]:
        """Of all weights concerned, those of the plan first."""
        weights = [weight.geometry.device for weight in self._plan.weights.values()]
        return list(dict.fromkeys([*weights, *(held.geometry.device for held in self._former.held.values())]))

    def _site(self, device: torch.device, store: FactorStore, replayable: bool) -> Site:
        weights = [weight for weight in self._plan.weights.values() if weight.geometry.device == device]
        old = {address: held for address, held in self._former.held.items() if held.geometry.device == device}
        former = (self._former.adapters, self._former.store)
        if device.type != "cpu":
            return DeviceSite(self._plan.entries, weights, old, former, store, device, self._manner, replayable)
        return HostSite(self._plan.entries, weights, old, former, store, self._manner, replayable)

    def _branch_site(self, store: FactorStore) -> BranchSite | None:
        """Comes last: what fails before it has not changed a branch."""
        if not self._plan.branches and not self._former.branches:
            return None
        site = BranchSite(self._plan, dict(self._former.branches), store, self._manner)
        self._sites.append(site)
        return site

    def _recall(self) -> bool:
        """Has the former factors in memory. False where they are out of reach and nobody needs them, unless something
        goes wrong."""
        fault_points.reach("recall")
        former = self._former.store
        before = former.read_nbytes
        try:
            former.recall(self._manner.function, self._manner.threads)
        except (ReadError, ClosedError, OSError):
            if self._plan.weights or any(held.tier == "journal" for held in self._former.held.values()):
                raise
            return False
        finally:
            self._recalled_nbytes = former.read_nbytes - before
        return True
