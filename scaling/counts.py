"""Parameters, tokens and FLOPs of a size: plain integers, and every convention has a name.

Exponents move when the convention moves (Porian et al. 2024, section 3.2), so no count is ever
called just N, D or C.
"""

from dataclasses import dataclass

from scaling.sizes import Size


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """Parameter counts of one model whose input and output embeddings are tied."""

    total: int
    non_embedding: int
    embedding: int
    head: int


def parameters(size: Size) -> Parameters:
    """Count the weights of the decoder of this size.

    Per layer: 4 D N H for attention, 2 D F for the feed-forward, 2 D for its two norms and 2 H for
    the norms of queries and keys; D for the last norm; V D for the embedding, which is also the
    head (`head` says how many of `total` multiply as an output matrix).
    """
    attention = 4 * size.width * size.heads * size.head_width
    feedforward = 2 * size.width * size.feedforward
    norms = 2 * size.width + 2 * size.head_width
    body = size.depth * (attention + feedforward + norms) + size.width
    embedding = size.vocabulary * size.width
    return Parameters(
        total=body + embedding, non_embedding=body, embedding=embedding, head=embedding
    )


def flops_6nd(size: Size, *, tokens: int) -> int:
    """6 x (params_non_embedding + head) x tokens: the usual estimate of training compute.

    Kaplan et al. 2020, section 2.1, with the head added as Porian et al. 2024 advise; the embedding
    look-up multiplies nothing and is left out. With a tied embedding this is 6 x params_total x
    tokens.
    """
    count = parameters(size)
    return 6 * (count.non_embedding + count.head) * tokens


def flops_counted(size: Size, *, tokens: int, context: int) -> int:
    """Training FLOPs of every matrix product: two per multiply-add, the backward pass twice the
    forward.

    Causal attention counts half of the context x context scores and values; the head is counted,
    the embedding look-up, norms, softmax, recomputation and the optimizer are not.
    """
    dense = 4 * size.width * size.heads * size.head_width + 2 * size.width * size.feedforward
    attention = 2 * size.heads * size.head_width * context // 2
    per_token = 2 * (size.depth * (dense + attention) + size.vocabulary * size.width)
    return 3 * per_token * tokens


def tokens_for(size: Size, *, flops: float) -> int:
    """The number of tokens that spends `flops` (counted as `flops_6nd`) on this size."""
    return round(flops / flops_6nd(size, tokens=1))


PEAK_FLOPS = {
    "NVIDIA A100-SXM4-40GB": 312e12,
    "NVIDIA A100-SXM4-80GB": 312e12,
    "NVIDIA H100 80GB HBM3": 989e12,
    "NVIDIA H200": 989e12,
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5p": 459e12,
    "TPU v6 lite": 918e12,
}
"""Dense bf16 FLOP/s of one device, from the makers' data sheets, by JAX's `device_kind`."""
