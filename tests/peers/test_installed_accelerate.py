"""accelerate's and huggingface_hub's own loading code, unchanged, with and without install()."""

import pytest
import torch
from routed_loading import assert_same_tensors, load_both_ways
from safetensors.torch import save_file, save_model
from torch import nn

accelerate = pytest.importorskip("accelerate")
hub = pytest.importorskip("huggingface_hub")


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(9, 14), nn.ReLU(), nn.Linear(14, 5), nn.BatchNorm1d(5))


@pytest.fixture
def checkpoint(tmp_path):
    torch.manual_seed(1)
    path = str(tmp_path / "model.safetensors")
    saved = {k: torch.randn_like(v) if v.is_floating_point() else v + 3 for k, v in model().state_dict().items()}
    save_file(saved, path, metadata={"format": "pt"})
    return path


@pytest.mark.parametrize(
    "options", [{}, {"device_map": {"": "cpu"}}, {"dtype": torch.float16}, {"strict": True}], ids=str
)
def test_load_checkpoint_in_model(checkpoint, options):
    def load():
        loaded = model()
        accelerate.load_checkpoint_in_model(loaded, checkpoint, **options)
        return loaded.state_dict()

    theirs, ours = load_both_ways(load)
    assert_same_tensors(ours, theirs)


def test_load_checkpoint_and_dispatch_from_meta(checkpoint):
    def load():
        with accelerate.init_empty_weights():
            loaded = model()
        return accelerate.load_checkpoint_and_dispatch(loaded, checkpoint, device_map={"": "cpu"}).state_dict()

    theirs, ours = load_both_ways(load)
    assert_same_tensors(ours, theirs)


def test_load_state_dict_by_device(checkpoint):
    """Several devices in the map: one safe_open each, tensor by tensor."""
    from accelerate.utils import load_state_dict

    for device_map in (None, {"": "cpu"}, {"0": "cpu", "2": "disk"}):
        theirs, ours = load_both_ways(lambda: load_state_dict(checkpoint, device_map=device_map))  # noqa: B023
        assert_same_tensors(ours, theirs)


def test_offloaded_weights_come_from_the_file(checkpoint):
    from accelerate.utils import OffloadedWeightsLoader

    index = {
        name: {"safetensors_file": checkpoint, "weight_name": name, "dtype": "float32"}
        for name in ("0.weight", "2.bias")
    }

    def load():
        loader = OffloadedWeightsLoader(index=index)
        return {name: loader[name] for name in loader}

    theirs, ours = load_both_ways(load)
    assert_same_tensors(ours, theirs)


def test_load_accelerator_state(tmp_path):
    """accelerate.checkpointing holds load_model."""
    accelerator = accelerate.Accelerator(cpu=True)
    prepared = accelerator.prepare(model())
    accelerator.save_state(tmp_path)
    expected = {name: value.clone() for name, value in prepared.state_dict().items()}

    def load():
        with torch.no_grad():
            for value in prepared.state_dict().values():
                value.zero_()
        accelerator.load_state(tmp_path)
        return {name: value.clone() for name, value in prepared.state_dict().items()}

    theirs, ours = load_both_ways(load)
    assert_same_tensors(ours, theirs)
    assert_same_tensors(ours, expected)


class Mixed(nn.Module, hub.PyTorchModelHubMixin):
    """Saved and loaded by huggingface_hub; its two weights are one."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(6, 6, bias=False)
        self.second = nn.Linear(6, 6, bias=False)
        self.second.weight = self.first.weight


def test_hub_mixin(tmp_path):
    torch.manual_seed(2)
    saved = Mixed()
    saved.save_pretrained(tmp_path)
    theirs, ours = load_both_ways(lambda: Mixed.from_pretrained(tmp_path).state_dict())
    assert_same_tensors(ours, theirs)
    assert_same_tensors(ours, saved.state_dict())


def test_hub_load_state_dict_from_file(tmp_path):
    path = tmp_path / "model.safetensors"
    save_model(model(), str(path))
    theirs, ours = load_both_ways(lambda: hub.load_state_dict_from_file(path))
    assert_same_tensors(ours, theirs)
