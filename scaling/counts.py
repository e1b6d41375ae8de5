"""Parameters, tokens and FLOPs of a size: plain integers, and every convention has a name.

Exponents move when the convention moves (Porian et al. 2024, section 3.2), so no count is ever
called just N, D or C.
"""

from dataclasses import dataclass

from scaling.architecture import Architecture
from scaling.sizes import Size


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """Parameter counts of one model.

    `embedding` is every look-up table (pieces, learned positions, token types), `head` the D x V
    matrix of the output whether it is the embedding's own (tied) or not; `non_embedding` is all
    that is no look-up table, an untied head included.
    """

    total: int
    non_embedding: int
    embedding: int
    head: int


def parameters(size: Size, kind: Architecture) -> Parameters:
    """Count the weights of a model of this size and architecture.

    Per layer: 2 D N H + 2 D K H for attention, 2 D F for the feed-forward (3 D F with a gate), two
    norms of D (2 D with LayerNorm) and 2 H where queries and keys are normalised; biases where they
    are built. A pooler has D^2 + D, BERT's head D^2 + D, a norm and V.
    """
    D, F = size.width, size.feedforward
    heads, kv_heads = size.heads * size.head_width, size.kv_heads * size.head_width
    norm = 2 * D if kind.norm == "layer" else D
    layer = _matrices(size, kind) + 2 * norm
    if kind.query_key_norm:
        layer += 2 * size.head_width
    if kind.biases:
        layer += heads + 2 * kv_heads + D + F + D
    body = size.depth * layer
    body += norm if kind.norm_position == "pre" else 0
    body += norm if kind.embedding_norm else 0
    body += D * D + D if kind.pooler else 0
    body += D * D + D + norm + size.vocabulary if kind.head_transform else 0
    head = size.vocabulary * D
    body += 0 if kind.tied else head
    embedding = head
    embedding += size.context * D if kind.positions == "learned" else 0
    embedding += kind.token_types * D
    return Parameters(total=body + embedding, non_embedding=body, embedding=embedding, head=head)


def _matrices(size: Size, kind: Architecture) -> int:
    """Entries of one layer's matrices."""
    attention = 2 * size.width * (size.heads + size.kv_heads) * size.head_width
    return attention + (3 if kind.activation == "swiglu" else 2) * size.width * size.feedforward


def flops_6nd(size: Size, kind: Architecture, *, tokens: int) -> int:
    """6 x (params_non_embedding + head) x tokens: the usual estimate of training compute.

    Kaplan et al. 2020, section 2.1, with the head added as Porian et al. 2024 advise; the look-ups
    multiply nothing and are left out. With a tied embedding and rotary positions this is 6 x
    params_total x tokens.
    """
    count = parameters(size, kind)
    untied = 0 if kind.tied else count.head
    return 6 * (count.non_embedding - untied + count.head) * tokens


def flops_counted(size: Size, kind: Architecture, *, tokens: int, context: int) -> int:
    """Training FLOPs of every matrix product: two per multiply-add, the backward pass twice the
    forward.

    Causal attention counts half of the context x context scores and values, bidirectional attention
    all of them, a sliding window what lies within it; the head is counted, BERT's transform too;
    look-ups, norms, softmax, recomputation, the pooler and the optimizer are not.
    """
    reach = context if kind.attention == "bidirectional" else context / 2
    if kind.window_tokens is not None:
        window = min(kind.window_tokens, context)
        if kind.attention == "bidirectional":
            window = min(2 * window - 1, context)
        reach = min(reach, window)
    attention = round(2 * size.heads * size.head_width * reach)
    head = size.vocabulary * size.width + (size.width**2 if kind.head_transform else 0)
    per_token = 2 * (size.depth * (_matrices(size, kind) + attention) + head)
    return 3 * per_token * tokens


def tokens_for(size: Size, kind: Architecture, *, flops: float) -> int:
    """The number of tokens that spends `flops` (counted as `flops_6nd`) on this size."""
    return round(flops / flops_6nd(size, kind, tokens=1))


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
