"""RAdam with the decoupled weight decay of Dassl's copy."""
import torch


class RAdam(torch.optim.RAdam):
    """Rectified Adam. Source: Liu et al., ICLR 2020; weight decay shrinks the weights, not the gradient."""

    def __init__(self, params, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
                 weight_decay: float = 0):
        super().__init__(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, decoupled_weight_decay=True)
