"""A history of compositions carried out by PEFT's own merging and unmerging, on the same model and adapters."""

import warnings

import peft
import torch
from peft.tuners.tuners_utils import BaseTunerLayer


class MergedByPeft:
    """PEFT over ``model`` with adapters named by their index; merges happen in the model's own weights."""

    def __init__(self, model, adapters):
        self._names = [str(index) for index in range(len(adapters))]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about a base model without a name, and about tied weights
            self._peft = peft.get_peft_model(model, _config(adapters[0]), adapter_name="0")
            for name, tensors in list(zip(self._names, adapters, strict=True))[1:]:
                self._peft.add_adapter(name, _config(tensors))
            for name, tensors in zip(self._names, adapters, strict=True):
                found = {f"base_model.model.{key}": value for key, value in tensors.items() if "alpha" not in key}
                missing = peft.set_peft_model_state_dict(self._peft, found, name)
                assert not missing.unexpected_keys
        self.layers = {
            name.removeprefix("base_model.model."): module
            for name, module in self._peft.named_modules()
            if isinstance(module, BaseTunerLayer)
        }
        self.merges = 0

    def compose(self, entries):
        """Takes out what is merged and merges [(index, strength)] at their strengths, which add up per adapter."""
        strengths = {}
        for index, strength in entries:
            strengths[str(index)] = strengths.get(str(index), 0.0) + strength
        wanted = [name for name, strength in strengths.items() if abs(strength) >= 1e-5]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that nothing is merged
            self._peft.unmerge_adapter()
            for layer in self.layers.values():
                for name in wanted:
                    layer.set_scale(name, strengths[name])
            if wanted:
                self._peft.merge_adapter(wanted)
                self.merges += 1

    def weights(self):
        """{module: its weight now}."""
        return {name: layer.get_base_layer().weight for name, layer in self.layers.items()}


def _config(tensors):
    modules = sorted({key.rsplit(".lora_", 1)[0] for key in tensors if ".lora_" in key})
    rank = next(value.shape[0] for key, value in tensors.items() if key.endswith(("lora_A.weight", "lora_embedding_A")))
    alpha = next((float(value) for key, value in tensors.items() if key.endswith("alpha")), rank)
    return peft.LoraConfig(r=rank, lora_alpha=alpha, target_modules=modules)


def drift(now, before):
    """(relative error over the elements that are finite, share of elements whose bits differ) over {name: weight}."""
    error = size = 0.0
    changed = total = 0
    for name, original in before.items():
        weight = now[name].detach()
        finite = original.isfinite()
        error += (weight[finite].double() - original[finite].double()).square().sum().item()
        size += original[finite].double().square().sum().item()
        integers = {2: torch.int16, 4: torch.int32}[original.element_size()]
        changed += (weight.view(integers) != original.view(integers)).sum().item()
        total += original.numel()
    return (error / size) ** 0.5, changed / total
