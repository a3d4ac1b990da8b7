"""Converts all-MiniLM-L6-v2 from safetensors to GGUF for llama.cpp, always to the same bytes."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agentkit.errors import MissingExtra

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_EMBEDDINGS = {
    "embeddings.word_embeddings": "token_embd",
    "embeddings.token_type_embeddings": "token_types",
    "embeddings.position_embeddings": "position_embd",
    "embeddings.LayerNorm": "token_embd_norm",
}
_LAYER = {
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
}


def write_gguf(members: Sequence[Path], target: Path) -> None:
    """Write the model at `target` from its safetensors, vocabulary and config, in that order.

    Raises MissingExtra without the packages `gguf` and `numpy`.
    """
    try:
        import gguf
    except ImportError as error:
        raise MissingExtra("local", error.name or "gguf") from error
    weights, vocabulary, config = members
    writer = gguf.GGUFWriter(target, "bert")
    _add_shape(writer, json.loads(config.read_bytes()))
    _add_tokenizer(writer, vocabulary.read_text(encoding="utf-8").splitlines())
    for name, tensor in _tensors(weights):
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_shape(writer: Any, config: dict[str, Any]) -> None:
    """Write the model's dimensions, as llama.cpp names them."""
    import gguf

    writer.add_name("all-MiniLM-L6-v2")
    writer.add_license("apache-2.0")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_layer_norm_eps(config["layer_norm_eps"])
    writer.add_causal_attention(value=False)
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)


def _add_tokenizer(writer: Any, words: list[str]) -> None:
    """Write the vocabulary and its special tokens, as llama.cpp names them."""
    tokens, types = zip(*map(_token, words), strict=True)
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("jina-v2-en")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_type_count(2)
    writer.add_bos_token_id(words.index("[CLS]"))
    writer.add_eos_token_id(words.index("[SEP]"))
    writer.add_unk_token_id(words.index("[UNK]"))
    writer.add_sep_token_id(words.index("[SEP]"))
    writer.add_pad_token_id(words.index("[PAD]"))
    writer.add_mask_token_id(words.index("[MASK]"))


def _token(word: str) -> tuple[str, int]:
    """Return a vocabulary entry as llama.cpp writes it, and its type.

    BERT marks the continuation of a word ("##ing"), llama.cpp marks the start of one (U+2581).
    """
    import gguf

    if word.startswith("[unused"):
        return word, gguf.TokenType.UNUSED
    if word.startswith("[") and word.endswith("]"):
        return word, gguf.TokenType.CONTROL
    if word.startswith("##"):
        return word[2:], gguf.TokenType.NORMAL
    return "\u2581" + word, gguf.TokenType.NORMAL


def _tensors(weights: Path) -> Iterator[tuple[str, NDArray[np.floating[Any]]]]:
    """Yield the tensors that llama.cpp uses, by their GGUF names; large matrices become float16.

    A safetensors file is an 8-byte length, a JSON header of that length, then the raw tensors.
    """
    import numpy as np

    with weights.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    data = np.memmap(weights, mode="r", offset=8 + length)
    for name in sorted(header):
        if name == "__metadata__" or "pooler" in name or "position_ids" in name:
            continue
        start, end = header[name]["data_offsets"]
        tensor = data[start:end].view(np.float32).reshape(header[name]["shape"])
        number_type = np.float16 if _is_large_matrix(name, tensor.ndim) else np.float32
        yield _gguf_name(name), tensor.astype(number_type)


def _gguf_name(name: str) -> str:
    """Return the GGUF name of a tensor, like `blk.3.ffn_down.bias`."""
    base, suffix = name.rsplit(".", 1)
    if base in _EMBEDDINGS:
        return f"{_EMBEDDINGS[base]}.{suffix}"
    _, _, number, part = base.split(".", 3)
    return f"blk.{number}.{_LAYER[part]}.{suffix}"


def _is_large_matrix(name: str, dimensions: int) -> bool:
    return dimensions == 2 and "token_type" not in name and "position" not in name
