"""Attention whose projections are all plain linear layers, so that each can be quantised."""

from torch import Tensor, nn
from torch.nn import functional


class SelfAttention(nn.Module):
    """Multi-head attention of tokens to each other; one linear layer makes queries, keys and values."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.projection = nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Map `(batch, tokens, width)`; `mask` `(tokens, tokens)` is added to the scaled products."""
        batch, tokens, width = x.shape
        split = self.qkv(x).reshape(batch, tokens, 3, self.heads, width // self.heads)
        queries, keys, values = split.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = functional.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
        y: Tensor = self.projection(mixed.transpose(1, 2).reshape(batch, tokens, width))
        return y


class LoneAttention(nn.Module):
    """Attention to one token: its weight is 1 whatever query and key say, so that these two never run."""

    NEVER_RUN = ("query", "key")

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.projection = nn.Linear(width, width)

    def forward(self, token: Tensor) -> Tensor:
        """Map the attended token `(batch, 1, width)`."""
        y: Tensor = self.projection(self.value(token))
        return y
