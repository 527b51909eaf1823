"""peft's own loading code, unchanged, with and without install()."""

import pytest
import safetensors.torch
import torch
from routed_loading import assert_same_tensors, load_both_ways

peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


def base():
    torch.manual_seed(0)
    config = transformers.BertConfig(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=40, vocab_size=60
    )
    return transformers.BertModel(config).eval()


CONFIGS = {
    "lora": lambda: peft.LoraConfig(r=3, target_modules=["query", "dense"], init_lora_weights=False),
    "dora": lambda: peft.LoraConfig(r=3, target_modules=["value"], use_dora=True, init_lora_weights=False),
    "loha": lambda: peft.LoHaConfig(r=3, target_modules=["query"], init_weights=False),
    "ia3": lambda: peft.IA3Config(
        target_modules=["key", "output.dense"], feedforward_modules=["output.dense"], init_ia3_weights=False
    ),
}


@pytest.fixture(params=CONFIGS)
def folder(request, tmp_path):
    torch.manual_seed(1)
    peft.get_peft_model(base(), CONFIGS[request.param]()).save_pretrained(tmp_path)
    return tmp_path


@pytest.mark.parametrize("low_cpu_mem_usage", [False, True])
def test_from_pretrained(folder, low_cpu_mem_usage):
    def load():
        return peft.PeftModel.from_pretrained(base(), folder, low_cpu_mem_usage=low_cpu_mem_usage).state_dict()

    theirs, ours = load_both_ways(load)
    assert_same_tensors(ours, theirs)


def test_load_peft_weights(folder):
    theirs, ours = load_both_ways(lambda: peft.load_peft_weights(folder))
    assert_same_tensors(ours, theirs)
    assert_same_tensors(ours, safetensors.torch.load_file(folder / "adapter_model.safetensors"))


def test_load_adapter_beside_another(folder):
    def load():
        model = peft.PeftModel.from_pretrained(base(), folder, adapter_name="first")
        model.load_adapter(folder, adapter_name="second")
        return model.state_dict()

    theirs, ours = load_both_ways(load)
    assert_same_tensors(ours, theirs)


def test_merged_models_are_equal(folder):
    theirs, ours = load_both_ways(
        lambda: peft.PeftModel.from_pretrained(base(), folder).merge_and_unload().state_dict()
    )
    assert_same_tensors(ours, theirs)
