"""A key classifier as loaders in Python usually have one: a list of regular expressions, tried in turn for every key.

Written here in that usual style, to stand for it; no loader's own rules.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_ROLE = r"\.(?P<role>lora_down|lora_up|lora_A|lora_B|alpha|dora_scale|diff|diff_b)(?:\.default)?(?:\.weight)?$"
_BLOCK = r"(?P<module>transformer_blocks\.(?P<block>\d+)\."
_SINGLE = r"(?P<module>single_transformer_blocks\.(?P<block>\d+)\."

# Other families first, as such lists grow at the front; the family measured is matched about two thirds down.
_MODULES = (
    r"(?P<module>lora_te1_text_model_encoder_layers_\d+_\w+)",
    r"(?P<module>lora_te2_text_model_encoder_layers_\d+_\w+)",
    r"(?P<module>lora_unet_input_blocks_\d+_\d+_\w+)",
    r"(?P<module>lora_unet_output_blocks_\d+_\d+_\w+)",
    r"(?P<module>lora_unet_middle_block_\d+_\w+)",
    r"(?P<module>lora_unet_down_blocks_\d+_\w+)",
    r"(?P<module>lora_unet_up_blocks_\d+_\w+)",
    r"(?P<module>lora_unet_double_blocks_\d+_\w+)",
    r"(?P<module>lora_unet_single_blocks_\d+_\w+)",
    r"(?P<module>double_blocks\.\d+\.(?:img|txt)_attn\.(?:qkv|proj))",
    r"(?P<module>double_blocks\.\d+\.(?:img|txt)_mlp\.[02])",
    r"(?P<module>double_blocks\.\d+\.(?:img|txt)_mod\.lin)",
    r"(?P<module>single_blocks\.\d+\.(?:linear1|linear2|modulation\.lin))",
    r"(?P<module>layers\.\d+\.attention\.(?:to_q|to_k|to_v|to_out\.0))",
    r"(?P<module>layers\.\d+\.attention\.(?:qkv|out))",
    r"(?P<module>layers\.\d+\.feed_forward\.w[123])",
    r"(?P<module>layers\.\d+\.adaLN_modulation\.\d+)",
    r"(?P<module>context_refiner\.\d+\.\w+(?:\.\w+)*)",
    r"(?P<module>noise_refiner\.\d+\.\w+(?:\.\w+)*)",
    r"(?P<module>blocks\.\d+\.self_attn\.(?:q|k|v|o))",
    r"(?P<module>blocks\.\d+\.cross_attn\.(?:q|k|v|o))",
    r"(?P<module>blocks\.\d+\.ffn\.[02])",
    _SINGLE + r"attn\.to_[qkv])",
    _SINGLE + r"proj_(?:mlp|out))",
    _SINGLE + r"norm\.linear)",
    _BLOCK + r"norm1(?:_context)?\.linear)",
    _BLOCK + r"attn\.to_(?:qkv|added_qkv))",
    _BLOCK + r"ff(?:_context)?\.net\.\d(?:\.proj)?)",
    _BLOCK + r"attn\.to_(?P<part>[qkv]))",
    _BLOCK + r"attn\.add_(?P<part>[qkv])_proj)",
    _BLOCK + r"attn\.to_out(?:\.0)?)",
    _BLOCK + r"attn\.to_add_out)",
    _BLOCK + r"img_mlp\.net\.(?:0\.proj|2))",
    _BLOCK + r"txt_mlp\.net\.(?:0\.proj|2))",
    _BLOCK + r"img_mod\.1)",
    _BLOCK + r"txt_mod\.1)",
    r"(?P<module>img_in|txt_in|proj_out)",
    r"(?P<module>norm_out\.linear)",
    r"(?P<module>time_text_embed\.\w+\.linear_[12])",
    r"(?P<module>\w+(?:\.\w+)*)",
)
_PREFIX = re.compile(r"^(?:transformer|diffusion_model|base_model\.model)\.")
_RULES = [re.compile("^" + module + _ROLE) for module in _MODULES]


def classify(keys: Iterable[str]) -> dict[str, dict[str, str]]:
    """Groups keys: module -> role -> key."""
    modules: dict[str, dict[str, str]] = {}
    for key in keys:
        stripped = _PREFIX.sub("", key)
        for rule in _RULES:
            found = rule.match(stripped)
            if found:
                modules.setdefault(found["module"], {})[found["role"]] = key
                break
    return modules


RULES = len(_RULES)
