"""Kinds of transformer: what its blocks are made of, apart from their sizes."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """What the blocks of a transformer are made of; its shape is a `scaling.sizes.Size`.

    - attention: whether a position may attend to later ones.
    - norm, norm_epsilon, norm_position: RMSNorm or LayerNorm, before each branch or after each sum.
    - positions: rotary (with `rotary_theta`) or a learned table.
    - activation: of the feed-forward; swiglu has a gate beside its up projection.
    - query_key_norm: RMSNorm over each head of queries and keys.
    - biases: on every projection of the blocks.
    - tied: whether the head is the transpose of the embedding.
    - window_tokens: how many positions a query sees, itself included; None for all.
    - logit_cap: c of c tanh(x / c) on the logits; None for none.
    - token_types: rows of a table added to the embedding (0: none).
    - embedding_norm: a norm between embedding and blocks.
    - head_transform: BERT's dense layer, activation and norm before the vocabulary, with a bias
      after it; pooler: its dense layer with tanh over the first position.
    """

    attention: Literal["causal", "bidirectional"]
    norm: Literal["rms", "layer"]
    norm_epsilon: float
    norm_position: Literal["pre", "post"]
    positions: Literal["rotary", "learned"]
    rotary_theta: float
    activation: Literal["gelu", "gelu_tanh", "swiglu", "squared_relu"]
    query_key_norm: bool
    biases: bool
    tied: bool
    window_tokens: int | None
    logit_cap: float | None
    token_types: int
    embedding_norm: bool
    head_transform: bool
    pooler: bool


LADDER = Architecture(
    attention="causal",
    norm="rms",
    norm_epsilon=1e-6,
    norm_position="pre",
    positions="rotary",
    rotary_theta=10_000.0,
    activation="squared_relu",
    query_key_norm=True,
    biases=False,
    tied=True,
    window_tokens=None,
    logit_cap=None,
    token_types=0,
    embedding_norm=False,
    head_transform=False,
    pooler=False,
)
GPT2 = replace(
    LADDER,
    norm="layer",
    norm_epsilon=1e-5,
    positions="learned",
    activation="gelu_tanh",
    query_key_norm=False,
    biases=True,
)
LLAMA = replace(LADDER, norm_epsilon=1e-5, activation="swiglu", query_key_norm=False, tied=False)
QWEN3 = replace(LADDER, rotary_theta=1_000_000.0, activation="swiglu")
BERT = replace(
    GPT2,
    attention="bidirectional",
    norm_epsilon=1e-12,
    norm_position="post",
    activation="gelu",
    token_types=2,
    embedding_norm=True,
    head_transform=True,
    pooler=True,
)
FAMILIES: Mapping[str, Architecture] = {
    "ladder": LADDER,
    "gpt2": GPT2,
    "llama": LLAMA,
    "qwen3": QWEN3,
    "bert": BERT,
}
"""Radford et al. 2019; Touvron et al. 2023; Yang et al. 2025; Devlin et al. 2019. `ladder` is this
project's own: squared ReLU (So et al. 2021) and norms of queries and keys (Henry et al. 2020)."""


class Published(NamedTuple):
    """A public model: its family, its shape, and what of its architecture differs."""

    family: str
    width: int
    depth: int
    heads: int
    kv_heads: int
    head_width: int
    feedforward: int
    vocabulary: int
    context: int
    tied: bool
    rotary_theta: float


def _gpt2(width: int, depth: int, heads: int) -> Published:
    return Published(
        "gpt2", width, depth, heads, heads, 64, 4 * width, 50_257, 1024, True, 10_000.0
    )


def _bert(width: int, depth: int, heads: int) -> Published:
    return Published("bert", width, depth, heads, heads, 64, 4 * width, 30_522, 512, True, 10_000.0)


PUBLIC: Mapping[str, Published] = {
    "gpt2": _gpt2(768, 12, 12),
    "gpt2-medium": _gpt2(1024, 24, 16),
    "gpt2-large": _gpt2(1280, 36, 20),
    "gpt2-xl": _gpt2(1600, 48, 25),
    "bert-base": _bert(768, 12, 12),
    "bert-large": _bert(1024, 24, 16),
    "llama-2-7b": Published("llama", 4096, 32, 32, 32, 128, 11_008, 32_000, 4096, False, 10_000.0),
    "llama-3.2-1b": Published(
        "llama", 2048, 16, 32, 8, 64, 8192, 128_256, 131_072, True, 500_000.0
    ),
    "qwen3-0.6b": Published(
        "qwen3", 1024, 28, 16, 8, 128, 3072, 151_936, 40_960, True, 1_000_000.0
    ),
    "qwen3-1.7b": Published(
        "qwen3", 2048, 28, 16, 8, 128, 6144, 151_936, 40_960, True, 1_000_000.0
    ),
}
"""Shapes as the models' own configurations give them (Llama 3.2 also rescales its rotary
frequencies for contexts beyond 8,192, which is not built here)."""
