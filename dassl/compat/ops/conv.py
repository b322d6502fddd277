"""A convolution that adapts to each image. Source: Sun et al., Dynamic Domain Generalization, IJCAI 2022."""
from __future__ import annotations

from torch import Tensor, nn

from dassl.utils.errors import UserError

from .attention import Attention


class Conv2dDynamic(nn.Module):
    """A convolution plus four smaller ones, weighted by an attention over the image.

    Args:
        kernel_size: odd. padding: kernel_size // 2, so that all five give maps of one size.
        squeeze, attention_in_channels: of the attention; by default those of the input.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int, padding: int,
                 bias: bool = True, squeeze: int | None = None, attention_in_channels: int | None = None):
        super().__init__()
        if kernel_size % 2 == 0 or padding != kernel_size // 2:
            raise UserError("Conv2dDynamic takes an odd kernel_size and half of it as padding; got "
                            f"kernel_size={kernel_size}, padding={padding}.")
        k = kernel_size

        def conv(height: int, width: int, groups: int = 1) -> nn.Conv2d:
            return nn.Conv2d(in_channels, out_channels, (height, width), stride, (height // 2, width // 2),
                             groups=groups, bias=bias)

        self.conv = conv(k, k)
        self.kernel_templates = nn.ModuleDict({"conv_nn": conv(k, k, min(in_channels, out_channels)),
                                               "conv_11": conv(1, 1), "conv_n1": conv(k, 1), "conv_1n": conv(1, k)})
        self.attention = Attention(attention_in_channels or in_channels, len(self.kernel_templates), squeeze, bias)

    def forward(self, x: Tensor, attention_x: Tensor | None = None) -> Tensor:
        """(B, in_channels, H, W) -> (B, out_channels, H', W'); the weights come from `attention_x`, else from x."""
        weights = self.attention(x if attention_x is None else attention_x)             # (B, 4)
        extras = (w[:, None, None, None] * conv(x)
                  for w, conv in zip(weights.unbind(1), self.kernel_templates.values(), strict=True))
        return self.conv(x) + sum(extras)
