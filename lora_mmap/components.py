"""Which component of a pipeline a bare model is, and which keys of an adapter are for another one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from .adapter import Adapter
from .algorithms.recognised import Form
from .errors import AmbiguousKeyError
from .model_weights import ModelWeights
from .names import Names
from .outcomes import Outcome
from .pairing import Pair, pair_up
from .placing import Target, landings


def foreign_groups(adapter: Adapter, names: Names, weights: ModelWeights, component: str | None) -> dict[int, str]:
    """Groups whose prefix names another pipeline component than the one this model is, with what to say of them.

    Text encoders share module names: which of them a bare model is follows from ``component`` or from the shapes.
    """
    if component is None and not adapter.mixes_components:
        return {}
    components = adapter.group_components
    here = component or _by_name(components, names) or _by_shape(adapter, names, weights)
    if here is None:
        return {}
    return {
        group: f"it belongs to {there}, this model is {here}"
        for group, there in enumerate(components)
        if there not in (None, here) and not _same_encoder(adapter, group, there, here)
    }


def _same_encoder(adapter: Adapter, group: int, there: str, here: str) -> bool:
    """True for a text encoder that pipelines have once: its names tell it, whatever number trainers give it.

    kohya's third one is T5 also for Flux.1, where diffusers has two.
    """
    if not (there.startswith("text_encoder") and here.startswith("text_encoder")):
        return False
    tables = adapter.tables
    families = {family for rule in adapter.groups[group].rules for family, _ in tables.rules[rule].namings}
    return bool(families) and all(tables.families[family].once for family in families)


def _by_name(components: Sequence[str | None], names: Names) -> str | None:
    """The component whose names alone lead to modules of the model, if it is only one."""
    hits = {
        component
        for component, found in zip(components, names.resolutions, strict=True)
        if component is not None and (isinstance(found, int) or found[1] or found[2])
    }
    return hits.pop() if len(hits) == 1 else None


def _by_shape(adapter: Adapter, names: Names, weights: ModelWeights) -> str | None:
    hits: Counter[str] = Counter()
    misfits: Counter[str] = Counter()
    found_of = zip(adapter.group_components, pair_up(adapter), names.resolutions, strict=True)
    for group, (component, pair, found) in enumerate(found_of):
        if component is None or (not isinstance(found, int) and not found[2]):
            continue
        ways = names.ways(group, found)
        if isinstance(ways, Outcome):
            continue
        hits[component] += 1
        form = (pair.rows, pair.cols) if isinstance(pair, Pair) else pair.forms.get("weight")
        if form is not None and not any(_fits(form, way, weights) for way in ways):
            misfits[component] += 1
    if len(hits) < 2:
        return next(iter(hits), None)
    fitting = [component for component in hits if not misfits[component]]
    if len(fitting) != 1:
        raise AmbiguousKeyError(
            f"[compose] {adapter.label} has keys for {', '.join(sorted(hits))} and the model could be "
            f"{'any' if fitting else 'none'} of them by its shapes: say which with component="
        )
    return fitting[0]


def _fits(form: Form, way: Sequence[Target], weights: ModelWeights) -> bool:
    for target in way:
        extent = weights.extent(target.number, "weight")
        if extent is None or landings(target, extent, form) is None:
            return False
    return True
