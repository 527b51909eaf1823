"""One forward pass of every kind of component, on seeded random inputs."""

import torch
from tiny_components import POOLED, TEXT_WIDTH, TOKENS
from torch import nn

_LENGTH = 5  # tokens of a prompt


@torch.no_grad()
def forward(model: nn.Module) -> torch.Tensor:
    """What the component makes of inputs that depend on its class and dtype only."""
    dtype = next(model.parameters()).dtype
    draw = torch.Generator().manual_seed(4)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=draw).to(dtype)

    name = type(getattr(model, "_orig_mod", model)).__name__  # torch.compile may have wrapped it
    if name in _DENOISERS:
        return _DENOISERS[name](model, noise)
    tokens = torch.randint(3, TOKENS, (2, _LENGTH), generator=draw)
    tokens[:, -1] = 2  # CLIP's pooled output is that of the last token
    output = model(input_ids=tokens)
    pooled = output.text_embeds if "Projection" in name else output.last_hidden_state
    return pooled


def _unet(model, noise):
    xl = model.config.addition_embed_type == "text_time"
    conditions = {"text_embeds": noise(2, POOLED), "time_ids": noise(2, 6)} if xl else None
    prompt = noise(2, _LENGTH, model.config.cross_attention_dim)
    return model(noise(2, 4, 8, 8), 3, prompt, added_cond_kwargs=conditions).sample


def _sd3(model, noise):
    pooled = noise(2, 2 * POOLED)
    return model(noise(2, 4, 8, 8), noise(2, _LENGTH, TEXT_WIDTH), pooled, torch.tensor([3, 3])).sample


def _flux(model, noise):
    return model(
        hidden_states=noise(2, 16, 6),
        encoder_hidden_states=noise(2, _LENGTH, TEXT_WIDTH),
        pooled_projections=noise(2, POOLED),
        timestep=torch.tensor([0.5, 0.5], dtype=model.dtype),
        guidance=torch.tensor([3.5, 3.5], dtype=model.dtype),
        img_ids=torch.arange(48.0).reshape(16, 3) % 4,
        txt_ids=torch.zeros(_LENGTH, 3),
    ).sample


def _qwen_image(model, noise):
    return model(
        hidden_states=noise(2, 16, 8),
        encoder_hidden_states=noise(2, _LENGTH, TEXT_WIDTH),
        encoder_hidden_states_mask=torch.ones(2, _LENGTH, dtype=torch.bool),
        timestep=torch.tensor([0.5, 0.5], dtype=model.dtype),
        img_shapes=[[(1, 4, 4)]] * 2,
    ).sample


def _wan(model, noise):
    return model(noise(2, 4, 2, 4, 4), torch.tensor([3, 3]), noise(2, _LENGTH, TEXT_WIDTH)).sample


def _z_image(model, noise):
    images = [noise(2, 1, 4, 4) for _ in range(2)]
    prompts = [noise(_LENGTH, TEXT_WIDTH) for _ in range(2)]
    return torch.stack(model(images, torch.tensor([0.5, 0.5], dtype=model.dtype), prompts).sample)


_DENOISERS = {
    "UNet2DConditionModel": _unet,
    "SD3Transformer2DModel": _sd3,
    "FluxTransformer2DModel": _flux,
    "QwenImageTransformer2DModel": _qwen_image,
    "WanTransformer3DModel": _wan,
    "ZImageTransformer2DModel": _z_image,
}
