"""Loading one adapter under a name into some modules of a pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from .. import log
from ..adapter import Adapter
from ..adapter_cache import adapter_cache
from ..adapter_sources import AdapterSource, open_adapter
from ..errors import ArgumentError
from ..leases import Lease
from ..outcomes import APPLIED
from ..plan import Plan
from ..recompose import make_report
from ..report import Report
from .fusing import PartStep, carry_out, locked, plan_all
from .named_adapters import Entry, named_adapters
from .parts import Part, Target, parts_of, targeted
from .pipeline_report import PipelineReport
from .scales import Scale, scales_of
from .sources import locate_source
from .turns import loaded_names, next_turn, take_turns
from .warned import warn
from .whole_precision import open_in_fp32

# Arguments by which diffusers' pipelines with several denoisers are told which.
_INTO = {"load_into_transformer_2": "transformer_2", "load_into_transformer_ref": "transformer_ref"}


@dataclass(frozen=True, slots=True)
class Load:
    """What somebody asked to be loaded. ``options`` are those of :func:`.locate_source` and of ``_INTO``."""

    function: str
    pipeline: Any
    source: Any
    name: str | None
    fuse: bool
    scale: Scale
    offload_device: str | torch.device
    use_cache: bool
    memory_efficient: bool
    target: Target | None
    strict: bool
    options: dict[str, Any]

    def carry_out(self) -> PipelineReport:
        """See :func:`.load_and_fuse_lora`."""
        retain = "memory" if self._offload_device().type == "cpu" else "device"
        parts = parts_of(self.function, self.pipeline)
        also = [name for option, name in _INTO.items() if self.options.get(option)]
        wanted = targeted(self.function, self.pipeline, parts, self.target or also or None)
        scales = scales_of(self.function, self.scale, wanted, "lora_scale")
        if self._is_taken(parts):
            return PipelineReport({})
        lease = self._open()
        with locked(parts):
            if self._is_taken(parts):  # meanwhile, by another thread
                return PipelineReport({})
            name = self.name or _free_name(parts)
            concerned = _concerned(lease.adapter, wanted)
            probes = [self._step(part, name, (lease.adapter, 1.0)) for part in concerned]
            plans = plan_all(self.function, probes, self.strict)
            homes = [probe.part for probe, plan in zip(probes, plans, strict=True) if _applies(plan)]
            opened = [lease.adapter] if lease.is_fresh else []
            if self.fuse and homes:
                steps = [self._step(part, name, (lease.adapter, scales[part.name]), retain) for part in homes]
                reports = carry_out(self.function, steps, opened, lambda: _know(homes, name, lease, retain))
                take_turns(parts, [name])
            else:
                reports = _foreseen(probes, plans, opened)
                _know(homes, name, lease, retain)
        return PipelineReport(reports)

    def _open(self) -> Lease:
        options = {name: value for name, value in self.options.items() if name not in _INTO}
        source: AdapterSource = locate_source(self.function, self.source, options)
        if not self.memory_efficient:
            lease = Lease.alone(open_in_fp32(source))
        elif self.use_cache:
            lease = adapter_cache.lease(self.function, source)
        else:
            lease = Lease.alone(open_adapter(source))
        if lease.is_fresh:
            log.opened(lease.adapter)
        return lease

    def _step(self, part: Part, name: str, entry: Entry, retain: str | None = None) -> PartStep:
        known = named_adapters(part.module)
        entries = part.state.composition.entries
        return PartStep(part, [*known.placed(entries), (name, entry)], known.nameless(entries), retain)

    def _is_taken(self, parts: Sequence[Part]) -> bool:
        if self.name is None or self.name not in loaded_names(parts):
            return False
        warn(f"adapter_name {self.name!r} is taken: ignored, nothing was loaded", outwards=2)
        return True

    def _offload_device(self) -> torch.device:
        try:
            return torch.device(self.offload_device)
        except (RuntimeError, TypeError) as error:
            raise ArgumentError(
                f"[{self.function}] offload_device is {self.offload_device!r}, expected a torch.device"
            ) from error


def _know(homes: Sequence[Part], name: str, lease: Lease, retain: str) -> None:
    number = next_turn()
    for part in homes:
        known = named_adapters(part.module)
        known.load(name, lease, number)
        known.retain = retain


def _free_name(parts: Sequence[Part]) -> str:
    taken = loaded_names(parts)
    return next(name for number in range(len(taken) + 1) if (name := f"default_{number}") not in taken)


def _concerned(adapter: Adapter, wanted: list[Part]) -> list[Part]:
    """The parts that the keys' prefixes speak of. Keys without one are the denoiser's, where there is one."""
    spoken_of = set(adapter.group_components)
    has_denoiser = any(part.component == "denoiser" for part in wanted)
    if None in spoken_of:
        spoken_of |= {"denoiser"} if has_denoiser else {part.component for part in wanted}
    # Trainers number text encoders in their own ways; planning tells which is which.
    encoders = any(component and component.startswith("text_encoder") for component in spoken_of)
    found = [
        part
        for part in wanted
        if part.component is None
        or part.component in spoken_of
        or (encoders and part.component.startswith("text_encoder"))
    ]
    return found or wanted


def _applies(plan: Plan) -> bool:
    """True where the adapter that was added last has a place."""
    return plan.entries[-1].count(APPLIED) > 0


def _foreseen(steps: Sequence[PartStep], plans: Sequence[Plan], opened: Sequence[Adapter]) -> dict[str, Report]:
    reports: dict[str, Report] = {}
    for step, plan in zip(steps, plans, strict=True):
        plan.entries = plan.entries[-1:]
        index = step.part.state.weights(step.part.module).index
        report = make_report(plan, index, () if reports else opened, {})
        report.dry_run = True
        plan.forget_weights()
        reports[step.part.name] = report
    if not any(reports.values()):
        for report in reports.values():
            log.report(report)
    return reports
