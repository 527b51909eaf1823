"""Hooks and wrappers of modules with side branches, put on and taken off in any order."""

import pytest
import torch
from composed_linears import X, assert_computes, composed, scaled
from int8_linears import Model

import lora_mmap


def instance_forward(module, seen):
    inner = module.forward

    def forward(*args, **kwargs):
        seen.append(args or kwargs)
        return inner(*args, **kwargs)

    module.forward = forward
    return lambda: delattr(module, "forward")


def forward_hook(module, seen):
    return module.register_forward_hook(lambda module, args, result: seen.append(result)).remove


def pre_hook(module, seen):
    return module.register_forward_pre_hook(lambda module, args, kwargs: seen.append(args), with_kwargs=True).remove


def accelerate_hook(module, seen):
    hooks = pytest.importorskip("accelerate.hooks")

    class Seeing(hooks.ModelHook):
        def pre_forward(self, module, *args, **kwargs):
            seen.append(args or kwargs)
            return args, kwargs

    hooks.add_hook_to_module(module, Seeing())
    return lambda: hooks.remove_hook_from_module(module)


def diffusers_hook(module, seen):
    hooks = pytest.importorskip("diffusers.hooks")

    class Seeing(hooks.ModelHook):
        def new_forward(self, module, *args, **kwargs):
            seen.append(args or kwargs)
            return self.fn_ref.original_forward(*args, **kwargs)

    registry = hooks.HookRegistry.check_if_exists_or_initialize(module)
    registry.register_hook(Seeing(), "seeing")
    return lambda: registry.remove_hook("seeing")


HOOKS = [instance_forward, forward_hook, pre_hook, accelerate_hook, diffusers_hook]


@pytest.mark.filterwarnings("ignore")  # of the libraries
@pytest.mark.parametrize("taken_off", ["while", "after"])
@pytest.mark.parametrize("put_on", ["before", "while"])
@pytest.mark.parametrize("hook", HOOKS, ids=lambda hook: hook.__name__)
def test_hooks_and_branches_do_not_mind_each_other(hook, put_on, taken_off, entries):
    """Both linears: one is called with a keyword."""
    model, seen, undo = Model(), [], []
    pristine = model(X)
    if put_on == "before":
        undo = [hook(module, seen) for module in (model.first, model.inner.second)]
    composed(model, entries)
    if put_on == "while":
        undo = [hook(module, seen) for module in (model.first, model.inner.second)]
    assert_computes(model, entries)
    assert len(seen) == 2
    lora_mmap.set_lora_strength_v2(model, -0.5)
    assert_computes(model, scaled(entries, -0.5))
    assert len(seen) == 4
    if taken_off == "while":
        for remove in undo:
            remove()
        assert_computes(model, scaled(entries, -0.5))
        assert len(seen) == 4
    assert lora_mmap.reset(model)
    assert torch.equal(model(X), pristine)
    if taken_off == "after":
        assert len(seen) == 6
        for remove in undo:
            remove()
        assert torch.equal(model(X), pristine)


def test_methods_taken_while_composed_outlive_the_branch(entries):
    model = composed(Model(), entries)
    taken = model.first.__call__, model.first.forward
    lora_mmap.reset(model)
    for method in taken:
        assert torch.equal(method(X), Model().first(X))
