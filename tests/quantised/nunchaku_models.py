"""Nunchaku's transformers: the module paths and shapes of the real ones at any width, quantised layers stood in for.

What Nunchaku leaves alone (embedders, norms, the ends) is plain; its Linears compute in the dtype of their input.
"""

import torch
from nunchaku_modules import AWQW4A16Linear, SVDQW4A4Linear
from torch import nn
from torch.nn import functional

MODULATION = 6  # vectors in turn for each channel in the output of a modulation; 3 in Flux's single blocks
IMAGE_CHANNELS = 64


class Linear(nn.Linear):
    """With float64 for input, a bfloat16 weight is one in float64."""

    def forward(self, x):
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return functional.linear(x, self.weight.to(x.dtype), bias)


class Norm(nn.Module):
    """Root mean square, over channels; a weight where ``affine``."""

    def __init__(self, width, affine=True, dtype=torch.bfloat16, device="cpu"):
        super().__init__()
        weight = nn.Parameter(torch.ones(width, dtype=dtype, device=device), requires_grad=False) if affine else None
        self.register_parameter("weight", weight)

    def forward(self, x):
        y = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6)
        return y if self.weight is None else y * self.weight.to(x.dtype)


class Makers:
    """Makes layers of one dtype on one device, with a seed each."""

    def __init__(self, rank, dtype, device):
        self.rank, self.form, self._seed = rank, {"dtype": dtype, "device": device}, 0

    def svdq(self, rows, cols):
        return SVDQW4A4Linear(cols, rows, rank=self.rank, seed=self._next(), **self.form)

    def awq(self, rows, cols):
        return AWQW4A16Linear(cols, rows, seed=self._next(), **self.form)

    def plain(self, rows, cols):
        if str(self.form["device"]) == "meta":
            return Linear(cols, rows, **self.form)
        with torch.random.fork_rng([]):
            torch.manual_seed(self._next())
            return Linear(cols, rows, **self.form)

    def norm(self, width, affine=True):
        return Norm(width, affine, **self.form)

    def _next(self):
        self._seed += 1
        return self._seed


def _holding(**children):
    """A module that has these, and what it does with them is its parent's affair."""
    module = nn.Module()
    for name, child in children.items():
        module.add_module(name, child)
    return module


class FeedForward(nn.Module):
    """``net.0.proj`` and ``net.2``, as diffusers numbers them."""

    def __init__(self, first, second):
        super().__init__()
        self.net = nn.ModuleList([_holding(proj=first), nn.Identity(), second])

    def forward(self, x):
        return self.net[2](functional.gelu(self.net[0].proj(x), approximate="tanh"))


def _attention(make, width, head):
    """``attn`` of Qwen-Image and of Flux's double blocks."""
    parts = {
        "to_qkv": make.svdq(3 * width, width),
        "add_qkv_proj": make.svdq(3 * width, width),
        "to_out": nn.ModuleList([make.svdq(width, width), nn.Identity()]),
        "to_add_out": make.svdq(width, width),
    }
    norms = ("norm_q", "norm_k", "norm_added_q", "norm_added_k")
    return _holding(**parts, **{name: make.norm(head) for name in norms})


class QwenImageBlock(nn.Module):
    def __init__(self, make, width, head, awq):
        super().__init__()
        modulation = make.awq if awq else make.plain
        self.heads, self.woven = width // head, awq
        self.img_mod, self.txt_mod = (
            nn.Sequential(nn.SiLU(), modulation(MODULATION * width, width)) for _ in ("image", "text")
        )
        self.img_norm1, self.img_norm2, self.txt_norm1, self.txt_norm2 = (make.norm(width, False) for _ in range(4))
        self.attn = _attention(make, width, head)
        self.img_mlp, self.txt_mlp = (
            FeedForward(make.svdq(4 * width, width), make.svdq(width, 4 * width)) for _ in ("image", "text")
        )

    def forward(self, image, text, about):
        img, txt = (self._vectors(modulation(about)) for modulation in (self.img_mod, self.txt_mod))
        seen = self._attend(_modulated(self.img_norm1(image), *img[:2]), _modulated(self.txt_norm1(text), *txt[:2]))
        image, text = image + img[2] * seen[0], text + txt[2] * seen[1]
        image = image + img[5] * self.img_mlp(_modulated(self.img_norm2(image), *img[3:5]))
        text = text + txt[5] * self.txt_mlp(_modulated(self.txt_norm2(text), *txt[3:5]))
        return image, text

    def _vectors(self, modulation):
        """shift, scale and gate, twice: [batch, 1, width] each."""
        batch = modulation.shape[0]
        if self.woven:
            modulation = modulation.view(batch, -1, MODULATION).transpose(1, 2).reshape(batch, -1)
        return modulation.unsqueeze(1).chunk(MODULATION, dim=-1)

    def _attend(self, image, text):
        attn, tokens = self.attn, text.shape[1]
        of_text, of_image = (
            [part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in fused(x).chunk(3, dim=-1)]
            for fused, x in ((attn.add_qkv_proj, text), (attn.to_qkv, image))
        )
        query = torch.cat([attn.norm_added_q(of_text[0]), attn.norm_q(of_image[0])], dim=2)
        key = torch.cat([attn.norm_added_k(of_text[1]), attn.norm_k(of_image[1])], dim=2)
        seen = functional.scaled_dot_product_attention(query, key, torch.cat([of_text[2], of_image[2]], dim=2))
        seen = seen.transpose(1, 2).flatten(2)
        return attn.to_out[0](seen[:, tokens:]), attn.to_add_out(seen[:, :tokens])


def _modulated(x, shift, scale):
    return x * (1 + scale) + shift


class NunchakuQwenImageTransformer2DModel(nn.Module):
    def __init__(self, make, blocks, width, text_width, head, awq):
        super().__init__()
        self.time_text_embed = _time_embedding(make, width)
        self.txt_norm = make.norm(text_width)
        self.img_in, self.txt_in = make.plain(width, IMAGE_CHANNELS), make.plain(width, text_width)
        self.transformer_blocks = nn.ModuleList(QwenImageBlock(make, width, head, awq) for _ in range(blocks))
        self.norm_out = _holding(linear=make.plain(2 * width, width), norm=make.norm(width, False))
        self.proj_out = make.plain(IMAGE_CHANNELS, width)

    def forward(self, hidden_states, encoder_hidden_states, timestep):
        """[batch, tokens, 64], [batch, text tokens, text_width], [batch] -> [batch, tokens, 64]."""
        embedder = self.time_text_embed.timestep_embedder
        waves = timestep.unsqueeze(-1) * torch.logspace(0, -4, 128, dtype=timestep.dtype, device=timestep.device)
        waves = torch.cat([waves.cos(), waves.sin()], dim=-1).to(hidden_states.dtype)
        about = embedder.linear_2(functional.silu(embedder.linear_1(waves)))
        image, text = self.img_in(hidden_states), self.txt_in(self.txt_norm(encoder_hidden_states))
        for block in self.transformer_blocks:
            image, text = block(image, text, about)
        scale, shift = self.norm_out.linear(functional.silu(about)).unsqueeze(1).chunk(2, dim=-1)
        return self.proj_out(_modulated(self.norm_out.norm(image), shift, scale))


def _time_embedding(make, width, *others):
    """``timestep_embedder`` of 256 waves, and further embedders of (name, inputs)."""
    return _holding(
        **{
            name: _holding(linear_1=make.plain(width, inputs), linear_2=make.plain(width, width))
            for name, inputs in (("timestep_embedder", 256), *others)
        }
    )


def qwen_image(
    blocks=2, width=3072, *, text_width=None, head=64, rank=32, dtype=torch.bfloat16, device="cpu", awq=True
):
    """Qwen-Image as Nunchaku quantises it. ``text_width`` is ``width`` unless said (3584 in the real model). Without
    ``awq``, the modulation is plain, and its vectors one after the other."""
    make = Makers(rank, dtype, device)
    return NunchakuQwenImageTransformer2DModel(make, blocks, width, text_width or width, head, awq)


class NunchakuFluxTransformer2DModelV2(nn.Module):
    """Of Flux.1, modules only: nothing is computed by the model as a whole."""

    def __init__(self, make, double, single, width, head):
        super().__init__()
        pooled = ("text_embedder", 768)
        self.time_text_embed = _time_embedding(make, width, ("guidance_embedder", 256), pooled)
        self.x_embedder, self.context_embedder = make.plain(width, IMAGE_CHANNELS), make.plain(width, width)
        self.transformer_blocks = nn.ModuleList(_flux_double(make, width, head) for _ in range(double))
        self.single_transformer_blocks = nn.ModuleList(_flux_single(make, width, head) for _ in range(single))
        self.norm_out = _holding(linear=make.plain(2 * width, width))
        self.proj_out = make.plain(IMAGE_CHANNELS, width)


def _flux_double(make, width, head):
    sides = {}
    for ending in ("", "_context"):
        sides[f"norm1{ending}"] = _holding(linear=make.awq(MODULATION * width, width))
        sides[f"ff{ending}"] = FeedForward(make.svdq(4 * width, width), make.svdq(width, 4 * width))
    return _holding(attn=_attention(make, width, head), **sides)


def _flux_single(make, width, head):
    attn = _holding(
        to_qkv=make.svdq(3 * width, width),
        to_out=make.svdq(width, width),
        norm_q=make.norm(head),
        norm_k=make.norm(head),
    )
    return _holding(
        norm=_holding(linear=make.awq(3 * width, width)),
        attn=attn,
        mlp_fc1=make.svdq(4 * width, width),
        mlp_fc2=make.svdq(width, 4 * width),
    )


def flux(double=1, single=1, width=3072, *, head=64, rank=32, dtype=torch.bfloat16, device="cpu"):
    """Flux.1 as the second version of Nunchaku's class has it: diffusers' paths, fused and split."""
    return NunchakuFluxTransformer2DModelV2(Makers(rank, dtype, device), double, single, width, head)


class NunchakuZImageTransformer2DModel(nn.Module):
    """Z-Image below diffusers' names, modules only."""

    def __init__(self, make, layers, refiners, width, mlp, head):
        super().__init__()
        _z_image_layers(self, make, False, layers, refiners, width, mlp, head)
        self.all_x_embedder = nn.ModuleDict({"2-1": make.plain(width, IMAGE_CHANNELS)})
        self.all_final_layer = nn.ModuleDict({"2-1": _holding(linear=make.plain(IMAGE_CHANNELS, width))})


class NextDiT(nn.Module):
    """Z-Image below ComfyUI's names, modules only."""

    def __init__(self, make, layers, refiners, width, mlp, head):
        super().__init__()
        _z_image_layers(self, make, True, layers, refiners, width, mlp, head)
        self.x_embedder = make.plain(width, IMAGE_CHANNELS)
        self.final_layer = _holding(linear=make.plain(IMAGE_CHANNELS, width))


def _z_image_layers(model, make, comfy, layers, refiners, width, mlp, head):
    """Three stacks of layers, of which context's refiners are not modulated."""
    for stack, count in (("layers", layers), ("noise_refiner", refiners), ("context_refiner", refiners)):
        modulated = stack != "context_refiner"
        blocks = nn.ModuleList(_z_image_layer(make, comfy, modulated, width, mlp, head) for _ in range(count))
        model.add_module(stack, blocks)


def _z_image_layer(make, comfy, modulated, width, mlp, head):
    qkv, out = make.svdq(3 * width, width), make.svdq(width, width)
    gated, last = make.svdq(2 * mlp, width), make.svdq(width, mlp)
    if comfy:
        attention = {"qkv": qkv, "out": out, "q_norm": make.norm(head), "k_norm": make.norm(head)}
        feed_forward = _holding(w13=gated, w2=last)
    else:
        to_out = nn.ModuleList([out, nn.Identity()])
        attention = {"to_qkv": qkv, "to_out": to_out, "norm_q": make.norm(head), "norm_k": make.norm(head)}
        feed_forward = FeedForward(gated, last)
    layer = _holding(attention=_holding(**attention), feed_forward=feed_forward)
    if modulated:
        layer.add_module("adaLN_modulation", nn.Sequential(make.plain(4 * width, min(width, 256))))
    return layer


def z_image(layers=1, width=3840, comfy=False, *, refiners=1, head=64, rank=32, dtype=torch.bfloat16, device="cpu"):
    """Z-Image as Nunchaku quantises it in diffusers, or as ComfyUI-nunchaku does (``comfy``). The MLP is 8/3 as wide as
    the model, rounded up to 64."""
    mlp = -(-width * 8 // (3 * 64)) * 64
    kind = NextDiT if comfy else NunchakuZImageTransformer2DModel
    return kind(Makers(rank, dtype, device), layers, refiners, width, mlp, head)
