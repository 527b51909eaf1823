"""Threads on one quantised model: what they leave is what some order of their calls leaves."""

import random
from functools import partial

import torch
from branch_bounds import inputs, outputs
from in_threads import in_threads
from nunchaku_files import write
from nunchaku_models import qwen_image
from quantised_state import state

import lora_mmap

THREADS, OPERATIONS = 8, 12


def test_eight_threads_on_one_model(tmp_path):
    model = qwen_image(blocks=1, width=128)
    before, given = state(model), inputs(model)
    base = outputs(model, given)
    files = [write(tmp_path, model, "kohya", seed=seed, ranks=(4, 16, 9))[0] for seed in range(3)]
    compositions = [[(files[0], 1.0)], [(files[1], -0.5), (files[2], 0.3)], [(files[2], 2.0)], []]
    possible = []
    for entries in compositions:
        lora_mmap.compose_loras_v2(model, entries, apply_awq_mod=True)
        possible.append(outputs(model, given))

    def work(number):
        chance = random.Random(number)
        for _ in range(OPERATIONS):
            lora_mmap.compose_loras_v2(model, chance.choice(compositions), apply_awq_mod=True)
            if chance.random() < 0.2:
                lora_mmap.reset_lora_v2(model)

    in_threads(*(partial(work, number) for number in range(THREADS)))
    left = outputs(model, given)
    assert any(all(torch.allclose(left[name], one[name], rtol=1e-12) for name in left) for one in (base, *possible))
    lora_mmap.reset_lora_v2(model)
    assert state(model) == before
