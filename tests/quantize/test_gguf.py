from __future__ import annotations

import resource
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
import pytest

from sprat.engine import llama_lib
from sprat.errors import (
    ConfigError,
    CorruptFile,
    SpratError,
    StoreError,
    UnsupportedModel,
)
from sprat.quantize.gguf import GgufFacts, inspect, requantize
from sprat.quantize.gguf_header import TYPES, Header

PROSE = (
    "The river had been rising since noon. By the time the ferryman noticed, the lower landing was "
    "under a foot of brown water and the ropes that held the barge to the bank were as tight as "
    "the strings of a fiddle. He called to his daughter, who was feeding the hens behind the "
    "cottage, and told her to bring the long pole and the lantern. There was no wind, only the "
    "steady sound of water moving over stones. Two travellers stood on the far side, waving. One "
    "of them carried a box wrapped in oilcloth, and would not set it down, even when the mud began "
    "to climb over the tops of his boots. It is a strange thing, the ferryman thought, to hold so "
    "hard to a box when the whole valley is going under. He pushed off at once, leaning on the "
    "pole, and let the current carry the barge downstream before he turned it across. The first "
    "rule of the crossing was never to fight the river. The second rule was to charge double after "
    "dark."
)

Entry = tuple[str, int, Any]
Shape = tuple[str, list[int], int]

U8, U32, F32, BOOL, STRING, ARRAY, U64 = 0, 4, 6, 7, 8, 9, 10
ENTRIES: list[Entry] = [
    ("general.architecture", STRING, "llama"),
    ("general.name", STRING, "Tiny"),
    ("llama.context_length", U32, 64),
    ("llama.rope.freq_base", F32, 1e4),
    ("tokenizer.ggml.add_bos_token", BOOL, True),
    ("tokenizer.ggml.model", STRING, "gpt2"),
    ("tokenizer.ggml.pre", STRING, "smollm"),
    ("tokenizer.ggml.tokens", ARRAY, (STRING, ["a", "bc"])),
    ("tokenizer.ggml.token_type", ARRAY, (U32, [1, 1])),
    ("tokenizer.chat_template", STRING, "{{ messages }}"),
]
# The table outweighs the layers, as in small models, and is of another type.
TENSORS: list[Shape] = [
    ("token_embd.weight", [32, 4], 8),
    ("blk.0.attn_norm.weight", [8], 0),
    ("blk.0.attn_q.weight", [32, 2], 3),
    ("blk.0.attn_k.weight", [32, 1], 3),
]


def as_string(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


def as_value(kind: int, value: Any) -> bytes:
    if kind == STRING:
        return as_string(value)
    if kind == ARRAY:
        item, values = value
        items = b"".join(as_value(item, v) for v in values)
        return struct.pack("<IQ", item, len(values)) + items
    return struct.pack({U8: "<B", U32: "<I", F32: "<f", BOOL: "<?", U64: "<Q"}[kind], value)


def gguf_bytes(
    entries: list[Entry] | None = None,
    tensors: list[Shape] | None = None,
    *,
    version: int = 3,
    alignment: int = 32,
) -> bytes:
    """A whole GGUF file whose weights are zeros."""
    entries = ENTRIES if entries is None else entries
    tensors = TENSORS if tensors is None else tensors
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(entries))
    for key, kind, value in entries:
        head += as_string(key) + struct.pack("<I", kind) + as_value(kind, value)
    at = 0
    for name, shape, kind in tensors:
        at += -at % alignment
        head += as_string(name) + struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
        head += struct.pack("<IQ", kind, at)
        _, block, size = TYPES.get(kind, ("", 1, 1))
        at += int(np.prod(shape, dtype=object)) // block * size if len(shape) < 5 else 0
    return head + bytes(-len(head) % alignment) + bytes(min(at, 1 << 20))


def changed(key: str, kind: int, value: Any) -> list[Entry]:
    return [(k, kind, value) if k == key else (k, t, v) for k, t, v in ENTRIES]


def write(folder: Path, content: bytes) -> Path:
    path = folder / "tiny.gguf"
    path.write_bytes(content)
    return path


def test_gguf_inspect_reads_what_a_model_is(tmp_path: Path) -> None:
    assert inspect(write(tmp_path, gguf_bytes())) == GgufFacts(
        architecture="llama",
        name="Tiny",
        context_length=64,
        quantization="q4_1",
        parameters=32 * (4 + 2 + 1) + 8,
        chat_template=True,
        tokenizer="gpt2 (smollm)",
    )


def test_gguf_inspect_needs_neither_name_nor_template(tmp_path: Path) -> None:
    optional = {"general.name", "tokenizer.ggml.pre", "tokenizer.chat_template"}
    entries = [entry for entry in ENTRIES if entry[0] not in optional]
    facts = inspect(write(tmp_path, gguf_bytes(entries, version=2)))
    assert (facts.name, facts.chat_template, facts.tokenizer) == ("", False, "gpt2")


def test_gguf_inspect_honours_the_alignment(tmp_path: Path) -> None:
    entries = [*ENTRIES, ("general.alignment", U32, 128)]
    assert inspect(write(tmp_path, gguf_bytes(entries, alignment=128))).name == "Tiny"
    with pytest.raises(CorruptFile, match="expected at offset"):
        inspect(write(tmp_path, gguf_bytes(entries, alignment=32)))


def test_gguf_inspect_reads_the_published_model(smollm: Path) -> None:
    (published,) = (smollm / "source").iterdir()
    assert inspect(published) == GgufFacts(
        architecture="llama",
        name="Smollm2 135M 8k Lc100K Mix1 Ep2",
        context_length=8192,
        quantization="q4_1",
        parameters=134_515_008,
        chat_template=True,
        tokenizer="gpt2 (smollm)",
    )


def test_gguf_header_knows_the_types_that_llama_cpp_knows() -> None:
    # These two never stand in files; they are forms of activations.
    internal = {gguf.GGMLQuantizationType.Q8_1, gguf.GGMLQuantizationType.Q8_K}
    for kind, (block, size) in gguf.GGML_QUANT_SIZES.items():
        if kind not in internal:
            assert TYPES[kind] == (kind.name.lower(), block, size)


def test_gguf_inspect_refuses_a_file_cut_at_any_byte(tmp_path: Path) -> None:
    content = gguf_bytes()
    for size in range(len(content)):
        with pytest.raises(CorruptFile):
            inspect(write(tmp_path, content[:size]))


def test_gguf_inspect_refuses_the_published_model_cut_in_half(smollm: Path, tmp_path: Path) -> None:
    (published,) = (smollm / "source").iterdir()
    with published.open("rb") as stream:
        half = write(tmp_path, stream.read(published.stat().st_size // 2))
    with pytest.raises(CorruptFile, match="expected 98362432 bytes, found 49181216"):
        inspect(half)
    with pytest.raises(CorruptFile, match="the weights are cut"):
        requantize(half, tmp_path / "out.gguf", quantization="q8_0")


@pytest.mark.parametrize("value", [0x00, 0x7F, 0xFF])
def test_gguf_inspect_survives_any_changed_byte(tmp_path: Path, value: int) -> None:
    content = bytearray(gguf_bytes())
    refused = 0
    for at in range(len(content) - 256):
        before, content[at] = content[at], value
        try:
            inspect(write(tmp_path, bytes(content)))
        except (CorruptFile, UnsupportedModel):
            refused += 1
        content[at] = before
    assert refused > 100


@pytest.mark.parametrize(
    ("content", "error", "said"),
    [
        (b"", CorruptFile, "cut inside its header: 4 bytes expected at 0, 0 are there"),
        (b"GGML" + bytes(99), CorruptFile, "not a GGUF file"),
        (gguf_bytes(version=1), UnsupportedModel, "version 1 of GGUF"),
        (gguf_bytes(version=3 << 24), UnsupportedModel, "little-endian"),
        (gguf_bytes(tensors=[]), CorruptFile, "holds no tensors"),
        (gguf_bytes(ENTRIES[1:]), CorruptFile, "general.architecture: expected a string"),
        (gguf_bytes([*ENTRIES, ENTRIES[2]]), CorruptFile, "holds llama.context_length twice"),
        (gguf_bytes([*ENTRIES, ENTRIES[7]]), CorruptFile, "holds tokenizer.ggml.tokens twice"),
        (gguf_bytes(ENTRIES[:2] + ENTRIES[3:]), UnsupportedModel, "llama.context_length: expected"),
        (
            gguf_bytes(changed("llama.context_length", F32, 64.0)),
            UnsupportedModel,
            "expected a whole number above 0, found 64.0",
        ),
        (
            gguf_bytes([*ENTRIES, ("general.type", STRING, "adapter")]),
            UnsupportedModel,
            "holds 'adapter', not a model",
        ),
        (
            gguf_bytes([*ENTRIES, ("split.count", U32, 3)]),
            UnsupportedModel,
            "one part of a split model",
        ),
        (
            gguf_bytes([*ENTRIES, ("general.alignment", U32, 24)]),
            CorruptFile,
            "expected a power of 2, found 24",
        ),
        (gguf_bytes(tensors=[*TENSORS, TENSORS[0]]), CorruptFile, "token_embd.weight twice"),
        (
            gguf_bytes(tensors=[("a", [32, 2, 1, 1, 1], 0)]),
            CorruptFile,
            "tensor a: 5 dimensions",
        ),
        (gguf_bytes(tensors=[("a", [], 0)]), CorruptFile, "tensor a: 0 dimensions"),
        (gguf_bytes(tensors=[("a", [33], 8)]), CorruptFile, "shape [33] cannot be q8_0"),
        (gguf_bytes(tensors=[("a", [32, 0], 8)]), CorruptFile, "shape [32, 0] cannot be q8_0"),
        (gguf_bytes(tensors=[("a", [1 << 62, 4], 0)]), CorruptFile, "the weights are cut"),
        (gguf_bytes(tensors=[("a", [32], 9)]), UnsupportedModel, "unknown type of weights 9"),
    ],
)
def test_gguf_inspect_refuses_what_does_not_add_up(
    tmp_path: Path, content: bytes, error: type[SpratError], said: str
) -> None:
    path = write(tmp_path, content)
    with pytest.raises(error) as caught:
        inspect(path)
    assert said in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("count", [1 << 20, 1 << 63, (1 << 64) - 1])
@pytest.mark.parametrize("at", [8, 16])
def test_gguf_inspect_believes_no_count(tmp_path: Path, count: int, at: int) -> None:
    content = bytearray(gguf_bytes())
    struct.pack_into("<Q", content, at, count)
    with pytest.raises((CorruptFile, UnsupportedModel)):
        inspect(write(tmp_path, bytes(content)))


@pytest.mark.parametrize("make", [Path.mkdir, lambda path: None], ids=["folder", "nothing"])
def test_gguf_inspect_refuses_what_is_no_file(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "model.gguf")
    with pytest.raises(CorruptFile, match="cannot be read"):
        inspect(tmp_path / "model.gguf")


@pytest.fixture(scope="module")
def published(smollm: Path) -> Path:
    (path,) = (smollm / "source").iterdir()
    return path


@pytest.fixture(scope="module")
def requantized(published: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("requantized") / "model.gguf"
    facts = requantize(published, out, quantization="q8_0")
    assert facts.quantization == "q8_0"
    return out


def test_gguf_requantize_changes_nothing_but_the_weights(
    published: Path, requantized: Path
) -> None:
    before, after, llama_cpp = Header(published), Header(requantized), llama_lib.load()
    assert after.metadata.pop("general.file_type") == llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0
    assert before.metadata.pop("general.file_type") == llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_1
    assert after.metadata == before.metadata
    old = {tensor.name: (tensor.type, tensor.weights) for tensor in before.tensors}
    new = {tensor.name: (tensor.type, tensor.weights) for tensor in after.tensors}
    assert new == {n: ("f32" if kind == "f32" else "q8_0", w) for n, (kind, w) in old.items()}
    assert [path.name for path in requantized.parent.iterdir()] == ["model.gguf"]


@pytest.mark.parametrize(
    ("quantization", "kind", "most"),
    [("f16", "f16", 5e-4), ("q8_0", "q8_0", 0.005), ("q4_0", "q4_0", 0.13), ("iq4_nl", None, 0.13)],
)
def test_gguf_requantize_makes_every_type(
    tiny: Path, tmp_path: Path, quantization: str, kind: str | None, most: float
) -> None:
    facts = requantize(tiny, tmp_path / "out.gguf", quantization=quantization)
    assert facts.quantization == (kind or quantization)
    before = {t.name: t for t in gguf.GGUFReader(tiny).tensors}
    for tensor in gguf.GGUFReader(tmp_path / "out.gguf").tensors:
        weights = gguf.dequantize(tensor.data, tensor.tensor_type)
        error = np.abs(weights - before[tensor.name].data).max()
        assert error <= most * np.abs(before[tensor.name].data).max()


def test_gguf_requantize_dequantizes_the_published_weights(published: Path, tmp_path: Path) -> None:
    requantize(published, tmp_path / "f16.gguf", quantization="f16")
    name = "blk.0.attn_k.weight"
    old, new = (
        next(t for t in gguf.GGUFReader(path).tensors if t.name == name)
        for path in (published, tmp_path / "f16.gguf")
    )
    assert (old.tensor_type.name, new.tensor_type.name) == ("Q4_1", "F16")
    expected = gguf.dequantize(old.data, old.tensor_type)
    np.testing.assert_array_equal(new.data, expected.astype(np.float16))


def weights_of(path: Path, name: str) -> bytes:
    tensors = Header(path).tensors
    padded = {tensor.name: -(-tensor.size // 32) * 32 for tensor in tensors}
    (size,) = (tensor.size for tensor in tensors if tensor.name == name)
    with path.open("rb") as stream:
        stream.seek(path.stat().st_size - sum(padded.values()))
        for other, length in padded.items():
            if other == name:
                return stream.read(size)
            stream.seek(length, 1)
    raise AssertionError(name)


def test_gguf_requantize_copies_what_is_q8_0_already(published: Path, requantized: Path) -> None:
    before = weights_of(published, "token_embd.weight")
    assert len(before) == 576 * 49152 // 32 * 34
    assert weights_of(requantized, "token_embd.weight") == before


def test_gguf_requantize_repeats_itself(published: Path, requantized: Path, tmp_path: Path) -> None:
    requantize(published, tmp_path / "again.gguf", quantization="q8_0")
    assert (tmp_path / "again.gguf").read_bytes() == requantized.read_bytes()


def log_probabilities(path: Path, text: str) -> npt.NDArray[np.float64]:
    """What a model says of the token after each token of a text: float64[T, V]."""
    llama_cpp = llama_lib.load()
    model = llama_cpp.llama_model_load_from_file(
        bytes(path), llama_cpp.llama_model_default_params()
    )
    params = llama_cpp.llama_context_default_params()
    params.n_ctx = params.n_batch = params.n_ubatch = params.n_outputs_max = 256
    params.n_threads_batch = 1
    context = llama_cpp.llama_init_from_model(model, params)
    vocabulary = llama_cpp.llama_model_get_vocab(model)
    ids = (llama_cpp.llama_token * 256)()
    count = llama_cpp.llama_tokenize(
        vocabulary, text.encode(), len(text.encode()), ids, 256, False, False
    )
    batch = llama_cpp.llama_batch_init(count, 0, 1)
    batch.n_tokens = count
    for at in range(count):
        batch.token[at], batch.pos[at], batch.logits[at] = ids[at], at, 1
        batch.n_seq_id[at], batch.seq_id[at][0] = 1, 0
    assert llama_cpp.llama_decode(context, batch) == 0
    width = llama_cpp.llama_vocab_n_tokens(vocabulary)
    view = np.ctypeslib.as_array(llama_cpp.llama_get_logits(context), (count, width))
    logits: npt.NDArray[np.float64] = view.astype(np.float64)
    llama_cpp.llama_batch_free(batch)
    llama_cpp.llama_free(context)
    llama_cpp.llama_model_free(model)
    logits -= logits.max(axis=1, keepdims=True)
    logits -= np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return logits


def test_gguf_requantize_keeps_the_distribution(published: Path, requantized: Path) -> None:
    before, after = (log_probabilities(path, PROSE) for path in (published, requantized))
    assert 190 <= len(before) <= 220
    divergence = (np.exp(before) * (before - after)).sum(axis=1).mean()
    same_best = (before.argmax(axis=1) == after.argmax(axis=1)).mean()
    assert divergence <= 0.01
    assert same_best >= 0.94


def test_gguf_requantize_says_nothing_on_the_terminal(
    published: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    requantize(published, tmp_path / "out.gguf", quantization="q8_0")
    assert capfd.readouterr() == ("", "")


def test_gguf_requantize_leaves_the_old_file_when_the_disk_is_full(
    published: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.gguf"
    out.write_text("old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16 << 20, limits[1]))
    try:
        with pytest.raises(StoreError, match="cannot be written; is there space left"):
            requantize(published, out, quantization="q8_0")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert out.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out.gguf"]


def test_gguf_requantize_refuses_a_folder_that_does_not_exist(
    published: Path, tmp_path: Path
) -> None:
    with pytest.raises(StoreError, match="its folder does not exist"):
        requantize(published, tmp_path / "no" / "out.gguf", quantization="q8_0")


def test_gguf_requantize_refuses_what_llama_cpp_does_not_know(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    entries = [
        ("general.architecture", STRING, "unheard-of"),
        ("unheard-of.context_length", U32, 64),
        ("tokenizer.ggml.model", STRING, "gpt2"),
    ]
    path = write(tmp_path, gguf_bytes(entries))
    with pytest.raises(UnsupportedModel, match=r"cannot re-quantize it .*unheard-of"):
        requantize(path, tmp_path / "out.gguf", quantization="q8_0")
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.gguf"]
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("quantization", ["q4_k", "Q8_0", None])
def test_gguf_requantize_refuses_another_quantization(tmp_path: Path, quantization: Any) -> None:
    with pytest.raises(ConfigError, match="quantization: expected f16, q8_0, q4_0, iq4_nl; got"):
        requantize(tmp_path / "in.gguf", tmp_path / "out.gguf", quantization=quantization)
