"""GPT-2 keeps its weights as [in, out]; PEFT writes such adapters with fan_in_fan_out."""

import copy

import pytest
import torch
from numerics_bound import assert_one_rounding

import lora_mmap

peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_conv1d_swaps_the_roles_of_the_factors(tmp_path, dtype, sha256):
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        n_embd=24, n_layer=2, n_head=2, n_positions=16, vocab_size=50, bos_token_id=0, eos_token_id=1
    )
    base = transformers.GPT2Model(config).eval()
    lora = peft.LoraConfig(r=5, lora_alpha=3, target_modules=["c_attn", "c_fc"], fan_in_fan_out=True)
    trained = peft.get_peft_model(copy.deepcopy(base), lora)
    optimizer = torch.optim.AdamW([p for p in trained.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(3):
        optimizer.zero_grad()
        trained(input_ids=torch.arange(12).reshape(2, 6)).last_hidden_state.square().mean().backward()
        optimizer.step()
    trained.save_pretrained(tmp_path)

    pristine = copy.deepcopy(base).to(dtype)
    model = copy.deepcopy(pristine)
    before = sha256(model)
    report = lora_mmap.compose(model, [(tmp_path, 1.0)], strict=True)

    assert report.applied == 4
    for name, module in trained.base_model.model.named_modules():
        if not isinstance(module, peft.tuners.lora.LoraLayer):
            continue
        down, up = module.lora_A["default"].weight, module.lora_B["default"].weight
        fused, original = model.get_submodule(name).weight, pristine.get_submodule(name).weight
        assert fused.shape == original.shape == (down.shape[1], up.shape[0])
        assert_one_rounding(fused.t(), original.t(), [(down, up, 3 / 5)], name)
    lora_mmap.reset(model)
    assert sha256(model) == before
