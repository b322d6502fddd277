"""Deterministic random CLIPs for the reference numbers, rebuilt from a spec instead of shipped.

    from random_clip import state_dict
    sd = state_dict(json.loads(str(npz["clip"])))       # {"kind": "vit"|"rn", "seed": s, ...}

kind "vit": tiny_clip.py with overrides (image, patch, v_width, v_layers, t_width, t_layers, context, vocab, embed_dim).
kind "rn" : the same text tower (drawn by tiny_clip with the same seed), visual tower an OpenAI ModifiedResNet drawn by resnet() below
            from RandomState(seed + 1): width w, layers (1,1,1,1), attnpool width 32 w, image 32 * grid, query/key weights of std qk_std.
"""
import os
import sys
from collections import OrderedDict

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
from tiny_clip import tiny_clip_numpy                                    # noqa: E402


def resnet(seed, width=8, layers=(1, 1, 1, 1), grid=2, embed_dim=32, qk_std=0.1):
    rs, sd = np.random.RandomState(seed), OrderedDict()

    def conv(name, o, i, k):
        sd[name + ".weight"] = (rs.standard_normal((o, i, k, k)) * (2.0 / (i * k * k)) ** 0.5).astype(np.float32)

    def bn(name, n):
        sd[name + ".weight"] = (1 + 0.1 * rs.standard_normal(n)).astype(np.float32)
        sd[name + ".bias"] = (0.1 * rs.standard_normal(n)).astype(np.float32)
        sd[name + ".running_mean"] = (0.1 * rs.standard_normal(n)).astype(np.float32)
        sd[name + ".running_var"] = (1 + 0.3 * rs.random_sample(n)).astype(np.float32)
        sd[name + ".num_batches_tracked"] = np.int64(1)

    def lin(name, o, i, std=0.1):
        sd[name + ".weight"] = (rs.standard_normal((o, i)) * std).astype(np.float32)
        sd[name + ".bias"] = (rs.standard_normal(o) * 0.02).astype(np.float32)

    v, h = "visual.", width // 2
    conv(v + "conv1", h, 3, 3); bn(v + "bn1", h)
    conv(v + "conv2", h, h, 3); bn(v + "bn2", h)
    conv(v + "conv3", width, h, 3); bn(v + "bn3", width)
    inplanes = width
    for n, count in enumerate(layers, 1):
        planes, stride = width * 2 ** (n - 1), 1 if n == 1 else 2
        for b in range(count):
            p = f"{v}layer{n}.{b}."
            conv(p + "conv1", planes, inplanes, 1); bn(p + "bn1", planes)
            conv(p + "conv2", planes, planes, 3); bn(p + "bn2", planes)
            conv(p + "conv3", planes * 4, planes, 1); bn(p + "bn3", planes * 4)
            if (stride > 1 and b == 0) or inplanes != planes * 4:
                conv(p + "downsample.0", planes * 4, inplanes, 1); bn(p + "downsample.1", planes * 4)
            inplanes = planes * 4
    e = width * 32
    sd[v + "attnpool.positional_embedding"] = (rs.standard_normal((grid * grid + 1, e)) * e ** -0.5).astype(np.float32)
    for k in ("k_proj", "q_proj", "v_proj"):
        lin(v + "attnpool." + k, e, e, 0.1 if k == "v_proj" else qk_std)
    lin(v + "attnpool.c_proj", embed_dim, e)
    return sd


def numpy_state(spec):
    spec = dict(spec)
    kind, seed = spec.pop("kind"), spec.pop("seed")
    if kind == "vit":
        return tiny_clip_numpy(seed, **spec)
    rn = {k: spec.pop(k) for k in ("width", "layers", "grid", "qk_std") if k in spec}
    sd = tiny_clip_numpy(seed, v_layers=0, **spec)
    sd = OrderedDict((k, v) for k, v in sd.items() if not k.startswith("visual."))
    sd.update(resnet(seed + 1, embed_dim=sd["text_projection"].shape[1], **rn))
    return sd


def state_dict(spec):
    import torch
    return OrderedDict((k, torch.tensor(v)) for k, v in numpy_state(spec).items())
