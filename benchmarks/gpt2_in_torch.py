"""GPT-2 in plain PyTorch, by the recipe of Karpathy's nanoGPT: fused QKV, and
`scaled_dot_product_attention`."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from scaling.sizes import Size

EPSILON = 1e-5


class Block(nn.Module):
    """x + attention(norm(x)), then x + feed-forward(norm(x))."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.size = size
        self.attention_norm = nn.LayerNorm(size.width, eps=EPSILON)
        self.qkv = nn.Linear(size.width, 3 * size.width)
        self.project = nn.Linear(size.width, size.width)
        self.feedforward_norm = nn.LayerNorm(size.width, eps=EPSILON)
        self.up = nn.Linear(size.width, size.feedforward)
        self.down = nn.Linear(size.feedforward, size.width)

    def forward(self, x_BTD: Tensor) -> Tensor:
        parts = self.qkv(self.attention_norm(x_BTD)).split(self.size.width, dim=2)
        heads = (self.size.heads, self.size.head_width)
        q_BNTH, k_BNSH, v_BNSH = (part.unflatten(2, heads).transpose(1, 2) for part in parts)
        mixed_BNTH = functional.scaled_dot_product_attention(q_BNTH, k_BNSH, v_BNSH, is_causal=True)
        x_BTD = x_BTD + self.project(mixed_BNTH.transpose(1, 2).flatten(2))
        h_BTF = functional.gelu(self.up(self.feedforward_norm(x_BTD)), approximate="tanh")
        return x_BTD + self.down(h_BTF)


class GPT2(nn.Module):
    """Tokens and targets to the mean loss; the head is the embedding's transpose."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.embedding = nn.Embedding(size.vocabulary, size.width)
        self.positions = nn.Embedding(size.context, size.width)
        self.blocks = nn.ModuleList(Block(size) for _ in range(size.depth))
        self.norm = nn.LayerNorm(size.width, eps=EPSILON)

    def forward(self, tokens_BT: Tensor, targets_BT: Tensor) -> Tensor:
        places_T = torch.arange(tokens_BT.shape[1], device=tokens_BT.device)
        x_BTD = self.embedding(tokens_BT) + self.positions(places_T)
        for block in self.blocks:
            x_BTD = block(x_BTD)
        logits_BTV = functional.linear(self.norm(x_BTD), self.embedding.weight)
        return functional.cross_entropy(logits_BTV.flatten(0, 1), targets_BT.flatten())


def port(weights: Mapping[str, np.ndarray], size: Size) -> dict[str, Tensor]:
    """This project's weights of family gpt2 as a state of `GPT2`: outputs before inputs, layers
    apart, queries, keys and values as one."""
    D = size.width
    ported = {
        "embedding.weight": weights["embedding"],
        "positions.weight": weights["positions"],
        "norm.weight": weights["norm.gain"],
        "norm.bias": weights["norm.bias"],
    }
    for layer in range(size.depth):
        part = {
            name.removeprefix("blocks."): value[layer]
            for name, value in weights.items()
            if name.startswith("blocks.")
        }
        qkv = [f"attention.{name}" for name in ("query", "key", "value")]
        own = {
            "qkv.weight": np.concatenate([part[name].reshape(D, D) for name in qkv], axis=1).T,
            "qkv.bias": np.concatenate([part[f"{name}_bias"].ravel() for name in qkv]),
            "project.weight": part["attention.project"].reshape(D, D).T,
            "project.bias": part["attention.project_bias"],
            "up.weight": part["feedforward.up"].T,
            "up.bias": part["feedforward.up_bias"],
            "down.weight": part["feedforward.down"].T,
            "down.bias": part["feedforward.down_bias"],
        }
        for name in ("attention_norm", "feedforward_norm"):
            own[f"{name}.weight"], own[f"{name}.bias"] = part[f"{name}.gain"], part[f"{name}.bias"]
        ported |= {f"blocks.{layer}.{name}": value for name, value in own.items()}
    return {name: torch.from_numpy(value.copy()) for name, value in ported.items()}
