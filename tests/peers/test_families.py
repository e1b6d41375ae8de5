"""Every public family gives the logits of transformers' own model with the same weights."""

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from scaling import counts
from scaling.architecture import FAMILIES, PUBLIC
from scaling.model.parameterization import standard
from scaling.model.transformer import Decoder, Encoder, Transformer
from scaling.sizes import Size

pytestmark = pytest.mark.peers

D, F, L, V, CONTEXT = 24, 56, 2, 61, 17
B, T = 3, 7
REASON = "compares with transformers; install the extra `peers`"
Sources = Mapping[str, np.ndarray]


def square(heads: int) -> Size:
    """A shape whose heads fill the width, as GPT-2 and BERT have it."""
    return Size(
        width=D, depth=L, heads=heads, kv_heads=heads, head_width=D // heads, feedforward=F,
        vocabulary=V, context=CONTEXT, token_types=2,
    )  # fmt: skip


GROUPED = Size(
    width=D, depth=L, heads=4, kv_heads=2, head_width=10, feedforward=F, vocabulary=V,
    context=CONTEXT,
)  # fmt: skip
SIZES = {"gpt2": square(3), "llama": GROUPED, "qwen3": GROUPED, "bert": square(3)}


def gpt2_weights(source: Sources) -> dict[str, np.ndarray]:
    """GPT-2 keeps matrices as inputs x outputs, queries, keys and values side by side."""
    heads = (3, D // 3)
    weights = {
        "embedding": source["transformer.wte.weight"],
        "positions": source["transformer.wpe.weight"],
        "norm.gain": source["transformer.ln_f.weight"],
        "norm.bias": source["transformer.ln_f.bias"],
    }

    def layers(name: str) -> np.ndarray:
        return np.stack([source[f"transformer.h.{layer}.{name}"] for layer in range(L)])

    queries, keys, values = np.split(layers("attn.c_attn.weight"), 3, axis=-1)
    query_biases, key_biases, value_biases = np.split(layers("attn.c_attn.bias"), 3, axis=-1)
    blocks = {
        "attention_norm.gain": layers("ln_1.weight"),
        "attention_norm.bias": layers("ln_1.bias"),
        "attention.query": queries.reshape(L, D, *heads),
        "attention.key": keys.reshape(L, D, *heads),
        "attention.value": values.reshape(L, D, *heads),
        "attention.query_bias": query_biases.reshape(L, *heads),
        "attention.key_bias": key_biases.reshape(L, *heads),
        "attention.value_bias": value_biases.reshape(L, *heads),
        "attention.project": layers("attn.c_proj.weight").reshape(L, *heads, D),
        "attention.project_bias": layers("attn.c_proj.bias"),
        "feedforward_norm.gain": layers("ln_2.weight"),
        "feedforward_norm.bias": layers("ln_2.bias"),
        "feedforward.up": layers("mlp.c_fc.weight"),
        "feedforward.up_bias": layers("mlp.c_fc.bias"),
        "feedforward.down": layers("mlp.c_proj.weight"),
        "feedforward.down_bias": layers("mlp.c_proj.bias"),
    }
    return weights | {f"blocks.{name}": value for name, value in blocks.items()}


def llama_weights(source: Sources) -> dict[str, np.ndarray]:
    """Llama and Qwen3 keep matrices as outputs x inputs."""

    def layers(name: str) -> np.ndarray:
        return np.stack([source[f"model.layers.{layer}.{name}.weight"] for layer in range(L)])

    def turned(name: str) -> np.ndarray:
        return layers(name).swapaxes(1, 2)

    blocks = {
        "attention_norm.gain": layers("input_layernorm"),
        "attention.query": turned("self_attn.q_proj").reshape(L, D, 4, 10),
        "attention.key": turned("self_attn.k_proj").reshape(L, D, 2, 10),
        "attention.value": turned("self_attn.v_proj").reshape(L, D, 2, 10),
        "attention.project": turned("self_attn.o_proj").reshape(L, 4, 10, D),
        "feedforward_norm.gain": layers("post_attention_layernorm"),
        "feedforward.gate": turned("mlp.gate_proj"),
        "feedforward.up": turned("mlp.up_proj"),
        "feedforward.down": turned("mlp.down_proj"),
    }
    weights = {
        "embedding": source["model.embed_tokens.weight"],
        "norm.gain": source["model.norm.weight"],
    }
    return weights | {f"blocks.{name}": value for name, value in blocks.items()}


def untied_llama_weights(source: Sources) -> dict[str, np.ndarray]:
    """Llama's head is a matrix of its own."""
    return llama_weights(source) | {"head": source["lm_head.weight"].T}


def qwen3_weights(source: Sources) -> dict[str, np.ndarray]:
    """Qwen3 adds gains for the heads of queries and keys."""
    gains = {
        f"blocks.attention.{ours}_gain": np.stack(
            [source[f"model.layers.{layer}.self_attn.{theirs}.weight"] for layer in range(L)]
        )
        for ours, theirs in (("query", "q_norm"), ("key", "k_norm"))
    }
    return llama_weights(source) | gains


def bert_weights(source: Sources) -> dict[str, np.ndarray]:
    """BERT's norms follow the sums, so that each belongs to the branch before it."""
    heads = (3, D // 3)

    def layers(name: str) -> np.ndarray:
        return np.stack([source[f"bert.encoder.layer.{layer}.{name}"] for layer in range(L)])

    def turned(name: str) -> np.ndarray:
        return layers(f"{name}.weight").swapaxes(1, 2)

    embeddings, transform = "bert.embeddings", "cls.predictions.transform"
    weights = {
        "embedding": source[f"{embeddings}.word_embeddings.weight"],
        "positions": source[f"{embeddings}.position_embeddings.weight"],
        "types": source[f"{embeddings}.token_type_embeddings.weight"],
        "embedding_norm.gain": source[f"{embeddings}.LayerNorm.weight"],
        "embedding_norm.bias": source[f"{embeddings}.LayerNorm.bias"],
        "pooler": source["bert.pooler.dense.weight"].T,
        "pooler_bias": source["bert.pooler.dense.bias"],
        "head_transform": source[f"{transform}.dense.weight"].T,
        "head_transform_bias": source[f"{transform}.dense.bias"],
        "head_norm.gain": source[f"{transform}.LayerNorm.weight"],
        "head_norm.bias": source[f"{transform}.LayerNorm.bias"],
        "head_bias": source["cls.predictions.bias"],
    }
    blocks = {
        "attention.project": turned("attention.output.dense").reshape(L, *heads, D),
        "attention.project_bias": layers("attention.output.dense.bias"),
        "attention_norm.gain": layers("attention.output.LayerNorm.weight"),
        "attention_norm.bias": layers("attention.output.LayerNorm.bias"),
        "feedforward.up": turned("intermediate.dense"),
        "feedforward.up_bias": layers("intermediate.dense.bias"),
        "feedforward.down": turned("output.dense"),
        "feedforward.down_bias": layers("output.dense.bias"),
        "feedforward_norm.gain": layers("output.LayerNorm.weight"),
        "feedforward_norm.bias": layers("output.LayerNorm.bias"),
    }
    for name in ("query", "key", "value"):
        blocks[f"attention.{name}"] = turned(f"attention.self.{name}").reshape(L, D, *heads)
        biases = layers(f"attention.self.{name}.bias")
        blocks[f"attention.{name}_bias"] = biases.reshape(L, *heads)
    return weights | {f"blocks.{name}": value for name, value in blocks.items()}


WEIGHTS: Mapping[str, Callable[[Sources], dict[str, np.ndarray]]] = {
    "gpt2": gpt2_weights,
    "llama": untied_llama_weights,
    "qwen3": qwen3_weights,
    "bert": bert_weights,
}


class Pair(NamedTuple):
    """A model of transformers and ours with the same weights."""

    theirs: Any
    ours: Transformer


def build_theirs(family: str) -> Any:
    """A random model of the family, in evaluation mode, made from its configuration alone."""
    transformers = pytest.importorskip("transformers", reason=REASON)
    size = SIZES[family]
    kind = FAMILIES[family]
    ends = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    if family == "gpt2":
        config = transformers.GPT2Config(
            vocab_size=V, n_positions=CONTEXT, n_embd=D, n_layer=L, n_head=size.heads, n_inner=F,
            layer_norm_epsilon=kind.norm_epsilon, **ends,
        )  # fmt: skip
        return transformers.GPT2LMHeadModel(config)
    common = {
        "vocab_size": V, "hidden_size": D, "intermediate_size": F, "num_hidden_layers": L,
        "num_attention_heads": size.heads, "max_position_embeddings": CONTEXT,
    }  # fmt: skip
    if family == "bert":
        config = transformers.BertConfig(**common, layer_norm_eps=kind.norm_epsilon)
        return transformers.BertForPreTraining(config)
    config_of, model_of = {
        "llama": (transformers.LlamaConfig, transformers.LlamaForCausalLM),
        "qwen3": (transformers.Qwen3Config, transformers.Qwen3ForCausalLM),
    }[family]
    return model_of(
        config_of(
            **common, **ends, num_key_value_heads=size.kv_heads, head_dim=size.head_width,
            rms_norm_eps=kind.norm_epsilon, tie_word_embeddings=kind.tied,
            rope_parameters={"rope_type": "default", "rope_theta": kind.rotary_theta},
        )
    )  # fmt: skip


@pytest.fixture(scope="module", params=WEIGHTS)
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def pair(family: str) -> Pair:
    torch = pytest.importorskip("torch", reason=REASON)
    theirs = build_theirs(family).eval()
    # Every weight away from its start: a gain of one or a bias of zero would hide its neglect.
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, weight in theirs.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            gain = weight.ndim == 1 and not name.endswith("bias")
            weight.copy_(1 + 0.3 * noise if gain else 0.3 * noise)
    source = {name: value.numpy() for name, value in theirs.state_dict().items()}
    size, kind = SIZES[family], FAMILIES[family]
    make = Decoder if kind.attention == "causal" else Encoder
    ours = make(size, kind, standard(size.lengths), key=jax.random.key(0))
    parameters = {
        ".".join(str(part) for part in path): parameter
        for path, parameter in nnx.to_flat_state(nnx.state(ours, nnx.Param))
    }
    weights = WEIGHTS[family](source)
    assert sorted(weights) == sorted(parameters)
    for name, value in weights.items():
        assert value.shape == parameters[name].shape, name
        parameters[name].set_value(jnp.asarray(value))
    return Pair(theirs, ours)


def tokens(seed: int = 0) -> np.ndarray:
    # Token 0 pads in theirs.
    return np.random.default_rng(seed).integers(3, V, size=(B, T))


def ask(theirs: Any, tokens_BT: np.ndarray, **arrays: np.ndarray) -> Any:
    torch = pytest.importorskip("torch", reason=REASON)
    given = {name: torch.from_numpy(array) for name, array in arrays.items()}
    with torch.no_grad():
        return theirs(input_ids=torch.from_numpy(tokens_BT), **given)


def logits_of(answer: Any) -> np.ndarray:
    """The scores of the vocabulary, whatever the family calls them."""
    return (answer["logits"] if "logits" in answer else answer["prediction_logits"]).numpy()


def batch(tokens_BT: np.ndarray, **arrays: np.ndarray) -> dict[str, jax.Array]:
    plain = {
        "tokens_BT": tokens_BT,
        "segments_BT": np.zeros_like(tokens_BT),
        "positions_BT": np.broadcast_to(np.arange(tokens_BT.shape[1]), tokens_BT.shape),
    }
    return {name: jnp.asarray(array) for name, array in (plain | arrays).items()}


def test_logits_equal_those_of_transformers(pair: Pair) -> None:
    tokens_BT = tokens()
    expected = logits_of(ask(pair.theirs, tokens_BT))
    assert np.std(expected) > 0.1
    np.testing.assert_allclose(pair.ours(batch(tokens_BT)), expected, rtol=1e-4, atol=1e-4)


def test_a_padded_window_gives_the_logits_of_transformers_before_its_padding(pair: Pair) -> None:
    tokens_BT, kept = tokens(1), np.array([[7], [5], [4]])
    real_BT = np.arange(T)[None] < kept
    expected = logits_of(ask(pair.theirs, tokens_BT, attention_mask=real_BT.astype(np.int64)))
    found = np.asarray(pair.ours(batch(tokens_BT, segments_BT=(~real_BT).astype(np.int64))))
    np.testing.assert_allclose(found[real_BT], expected[real_BT], rtol=1e-4, atol=1e-4)


def test_packed_documents_give_the_logits_that_transformers_gives_each(pair: Pair) -> None:
    tokens_BT, first = tokens(2), 3
    segments_BT = np.broadcast_to(np.arange(T) >= first, (B, T)).astype(np.int64)
    positions_BT = np.arange(T)[None] - first * segments_BT
    found = pair.ours(batch(tokens_BT, segments_BT=segments_BT, positions_BT=positions_BT))
    expected = np.concatenate(
        [logits_of(ask(pair.theirs, part)) for part in np.split(tokens_BT, [first], axis=1)], axis=1
    )
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", ["bert"], indirect=True)
def test_token_types_and_pooler_equal_those_of_transformers(pair: Pair) -> None:
    tokens_BT = tokens(4)
    types_BT = np.random.default_rng(5).integers(0, 2, size=(B, T))
    answer = ask(pair.theirs, tokens_BT, token_type_ids=types_BT)
    given = batch(tokens_BT, types_BT=types_BT)
    np.testing.assert_allclose(pair.ours(given), logits_of(answer), rtol=1e-4, atol=1e-4)
    torch = pytest.importorskip("torch", reason=REASON)
    with torch.no_grad():
        expected = pair.theirs.bert(
            torch.from_numpy(tokens_BT), token_type_ids=torch.from_numpy(types_BT)
        )
    assert isinstance(pair.ours, Encoder)
    pooled = pair.ours.pooled(pair.ours.features(given))
    np.testing.assert_allclose(pooled, expected.pooler_output.numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_shape_has_as_many_parameters_as_the_model_of_transformers(name: str) -> None:
    torch = pytest.importorskip("torch", reason=REASON)
    transformers = pytest.importorskip("transformers", reason=REASON)
    public = PUBLIC[name]
    kind = dataclasses.replace(FAMILIES[public.family], tied=public.tied)
    fields = public._asdict()
    shape = {key: fields[key] for key in Size.__dataclass_fields__ if key in fields}
    size = Size(**shape, token_types=kind.token_types)
    common = {
        "vocab_size": size.vocabulary, "hidden_size": size.width, "num_hidden_layers": size.depth,
        "num_attention_heads": size.heads, "intermediate_size": size.feedforward,
        "max_position_embeddings": size.context,
    }  # fmt: skip
    grouped = {
        "num_key_value_heads": size.kv_heads, "head_dim": size.head_width,
        "tie_word_embeddings": kind.tied,
    }  # fmt: skip
    with torch.device("meta"):
        if public.family == "gpt2":
            theirs = transformers.GPT2LMHeadModel(
                transformers.GPT2Config(
                    vocab_size=size.vocabulary, n_embd=size.width, n_layer=size.depth,
                    n_head=size.heads, n_positions=size.context,
                )
            )  # fmt: skip
        elif public.family == "bert":
            theirs = transformers.BertForPreTraining(transformers.BertConfig(**common))
        elif public.family == "llama":
            theirs = transformers.LlamaForCausalLM(transformers.LlamaConfig(**common, **grouped))
        else:
            theirs = transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**common, **grouped))
    # The classifier of sentence pairs is no part of ours.
    total = sum(
        weight.numel()
        for label, weight in theirs.named_parameters()
        if not re.match(r"cls\.seq_relationship", label)
    )
    assert counts.parameters(size, kind).total == total
