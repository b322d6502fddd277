"""timm's vision transformer as the image tower of a CLIP."""
import torch

from clip import FrozenCLIP
from clip.towers import TowerShape


def vit_of(weights, tiny_clip_weights):
    """No norm before the blocks, biased patches, GELU, norms with eps 1e-6; the text tower is the tiny CLIP's."""
    w = {name: torch.tensor(value) for name, value in weights.items()}
    position = w["pos_embed"][0]
    visual = {"class_embedding": w["cls_token"].flatten(), "positional_embedding": position,
              "conv1.weight": w["patch_embed.proj.weight"], "conv1.bias": w["patch_embed.proj.bias"],
              "ln_post.weight": w["norm.weight"], "ln_post.bias": w["norm.bias"],
              "proj": torch.zeros(position.shape[1], 32)}
    for i in range(3):
        old, new = f"blocks.{i}.", f"transformer.resblocks.{i}."
        for kind in ("weight", "bias"):
            visual[f"{new}attn.in_proj_{kind}"] = w[f"{old}attn.qkv.{kind}"]
            for ours, theirs in (("ln_1", "norm1"), ("ln_2", "norm2"), ("attn.out_proj", "attn.proj"),
                                 ("mlp.c_fc", "mlp.fc1"), ("mlp.c_proj", "mlp.fc2")):
                visual[f"{new}{ours}.{kind}"] = w[f"{old}{theirs}.{kind}"]
    text = {k: v for k, v in tiny_clip_weights.items() if not k.startswith("visual.")}
    shape = TowerShape(2, 1, "gelu")
    clip = FrozenCLIP.from_state_dict({**text, **{f"visual.{k}": v for k, v in visual.items()}}, shape)
    for module in clip.visual.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.eps = 1e-6
    return clip
