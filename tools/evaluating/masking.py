"""Whether gradients mislead an attack, so that a model looks more robust than it is.

Source: Obfuscated Gradients Give a False Sense of Security (Athalye et al., ICML 2018), section 3.1; On Evaluating
Adversarial Robustness (Carlini et al., 2019), section 5.
"""
from __future__ import annotations

import torch
from torch import Tensor

from trainers.parts.attack_names import Attack, in_255
from trainers.parts.attacks import ascent, cross_entropies
from trainers.under_attack import Attackable

MOST_IMAGES, SLACK = 64, 0.02           # images that are looked at; share of them that may differ by chance


def check(model: Attackable, attack: Attack, images: Tensor, labels: Tensor, seed: int) -> dict:
    """What the checks found for an attack by gradients: measures, and "warnings" in words.

    More steps of the same size must not leave more answers right; random changes must not leave fewer right; no image
    may be without a gradient.

    Args:
        images: in [0, 1]; the first MOST_IMAGES are looked at.
    """
    images, labels = images[:MOST_IMAGES], labels[:MOST_IMAGES]
    gradient, = ascent(model, images, labels, cross_entropies)
    blind = (gradient.flatten(1).abs().amax(dim=1) == 0).double().mean().item()
    attacks = {"steps": attack, "twice_the_steps": attack.with_steps(2 * attack.steps),
               "random": Attack("random", attack.eps, 2 * attack.steps, attack.step_size, attack.norm)}
    right = {name: _right(model, one, images, labels, seed) for name, one in attacks.items()}
    where, warnings = f"at eps {attack.radius}", []
    if blind:
        warnings.append(f"{blind:.0%} of the images have no gradient {where}: attacks by gradients cannot move them.")
    if right["twice_the_steps"] > right["steps"] + SLACK:
        warnings.append(f"{2 * attack.steps} steps leave more answers right ({right['twice_the_steps']:.1%}) than "
                        f"{attack.steps} steps ({right['steps']:.1%}) {where}: the attack is not converged, or "
                        "gradients mislead it.")
    if right["random"] < right["steps"] - SLACK:
        warnings.append(f"Random changes leave fewer answers right ({right['random']:.1%}) than {attack.kind} "
                        f"({right['steps']:.1%}) {where}: gradients mislead the attack. Use autoattack, whose square "
                        "needs none.")
    return {"images": len(images), "without_gradient": blind, "eps": in_255(attack.eps) if attack.norm == "linf" else
            attack.eps, "right": right, "warnings": warnings}


def _right(model: Attackable, attack: Attack, images: Tensor, labels: Tensor, seed: int) -> float:
    changed = images + attack(model, images, labels, seed)
    with torch.no_grad():
        return (model(changed).argmax(dim=1) == labels).double().mean().item()
