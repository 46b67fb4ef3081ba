"""Encoders converted for CTranslate2: against numpy, quantized, and refused where they are odd.

One file, because all of it converts the same tiny models.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import struct
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from ctranslate2 import Encoder, StorageView
from numpy_bert import Array, forward
from safetensors.numpy import load_file, save
from threadpoolctl import threadpool_limits
from tiny_encoders import (
    POSITIONS,
    ROWS,
    WIDTH,
    Tensors,
    bfloat16_file,
    config_of,
    publish,
    tensors_of,
    tokenizer_json,
)

from sprat.engine.ct2 import Ct2Encoder
from sprat.errors import ConfigError, CorruptFile, SpratError, StoreError, UnsupportedModel
from sprat.quantize.ct2 import EncoderFacts, convert
from sprat.tokenizer import Tokenizer

FAMILIES = ("bert", "camembert", "distilbert", "roberta", "xlm-roberta")
QUANTIZATIONS: tuple[str, ...] = ("int8", "int8_unsaturated", "float32")


@pytest.fixture(scope="module")
def published(minilm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MiniLM-L6 as its authors published it."""
    folder = tmp_path_factory.mktemp("published")
    for path in (minilm / "tokenizer.json", *(minilm / "source").iterdir()):
        (folder / path.name).symlink_to(path)
    return folder


@pytest.fixture(scope="module")
def rows(published: Path, shared_data: Path) -> list[npt.NDArray[np.int32]]:
    """Tokens of 1,000 real sentences, the short ones first."""
    lines = (shared_data / "banking77.test.jsonl").read_text("utf-8").splitlines()[:1000]
    texts = [json.loads(line)["text"] for line in lines]
    ids = Tokenizer.from_file(published / "tokenizer.json").encode_batch(texts)
    return sorted(ids, key=len)


@pytest.fixture(scope="module")
def reference(published: Path, rows: list[npt.NDArray[np.int32]]) -> Array:
    """Their sentence vectors in float64, by the independent forward pass."""
    tensors = {
        name: tensor.astype(np.float64)
        for name, tensor in load_file(published / "model.safetensors").items()
    }
    config = json.loads((published / "config.json").read_text())
    by_length = defaultdict(list)
    for row in rows:
        by_length[len(row)].append(row)
    # One thread: the threads of BLAS wait by spinning, which a busy machine pays for many times.
    with threadpool_limits(1):
        hidden = [
            forward(tensors, config, same[at : at + 64]).mean(axis=1)
            for same in by_length.values()
            for at in range(0, len(same), 64)
        ]
    vectors = np.concatenate(hidden)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


@pytest.mark.parametrize(
    ("quantization", "least_mean", "least_min"),
    [("float32", 0.9999, 0.9999), ("int8", 0.99, 0.98), ("int8_unsaturated", 0.99, 0.98)],
)
def test_ct2_convert_keeps_the_vectors_of_real_sentences(
    published: Path,
    rows: list[npt.NDArray[np.int32]],
    reference: Array,
    tmp_path: Path,
    quantization: str,
    least_mean: float,
    least_min: float,
) -> None:
    facts = convert(published, tmp_path / "ct2", quantization=quantization)
    assert facts == EncoderFacts("bert", 6, 12, 384, 512, 30522)
    engine = Ct2Encoder(tmp_path / "ct2", pooling="mean", max_tokens=256, workers=1)
    vectors = np.concatenate(
        [engine.encode(rows[at : at + 32], threads=1) for at in range(0, len(rows), 32)]
    )
    cosines = (vectors * reference).sum(axis=1)
    assert cosines.shape == (1000,)
    assert cosines.mean() >= least_mean
    assert cosines.min() >= least_min


def hidden_states(folder: Path, rows: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]:
    lengths = np.full(len(rows), rows.shape[1], np.int32)
    encoder = Encoder(str(folder), intra_threads=1)
    output = encoder.forward_batch(StorageView.from_array(rows), StorageView.from_array(lengths))
    assert output.pooler_output is None
    return np.array(output.last_hidden_state)


def some_rows(length: int = 9) -> npt.NDArray[np.int32]:
    return np.random.default_rng(3).integers(0, ROWS, (5, length), dtype=np.int32)


def assert_converted(folder: Path, tensors: Tensors, config: dict[str, Any], **names: str) -> None:
    """The model in `folder` answers as the independent forward pass does."""
    facts = convert(folder, folder / "ct2", quantization="float32")
    # As many tokens as there are positions, so that each one counts.
    rows = some_rows(facts.max_positions)
    expected = forward(tensors, config, list(rows), **names)
    np.testing.assert_allclose(hidden_states(folder / "ct2", rows), expected, atol=2e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_ct2_convert_is_exact_for_every_family(tmp_path: Path, family: str) -> None:
    assert_converted(publish(tmp_path / "m", family), tensors_of(family), config_of(family))


@pytest.mark.parametrize(
    "activation", ["gelu", "gelu_fast", "gelu_new", "gelu_pytorch_tanh", "relu", "silu", "swish"]
)
def test_ct2_convert_is_exact_for_every_activation(tmp_path: Path, activation: str) -> None:
    config = config_of("bert", hidden_act=activation)
    assert_converted(publish(tmp_path / "m", config=config), tensors_of("bert"), config)


def test_ct2_convert_reads_roberta_positions_behind_the_padding_id(tmp_path: Path) -> None:
    config = config_of("roberta", pad_token_id=4)
    folder = publish(tmp_path / "m", "roberta", config=config)
    assert_converted(folder, tensors_of("roberta"), config)
    facts = convert(folder, tmp_path / "again", quantization="int8")
    assert facts.max_positions == POSITIONS - 5


def test_ct2_convert_honours_the_epsilon_of_layer_norms(tmp_path: Path) -> None:
    config = config_of("bert", layer_norm_eps=0.3)
    assert_converted(publish(tmp_path / "m", config=config), tensors_of("bert"), config)


@pytest.mark.parametrize("family", ["bert", "distilbert", "roberta"])
def test_ct2_convert_leaves_out_poolers_and_task_heads(tmp_path: Path, family: str) -> None:
    prefix = f"{family}."
    tensors = tensors_of(family, prefix=prefix)
    extras = {
        f"{prefix}embeddings.position_ids": np.arange(POSITIONS)[None],
        f"{prefix}pooler.dense.weight": np.zeros((WIDTH, WIDTH), np.float32),
        f"{prefix}pooler.dense.bias": np.zeros(WIDTH, np.float32),
        "cls.predictions.bias": np.zeros(ROWS, np.float32),
        "classifier.weight": np.zeros((2, WIDTH), np.float32),
        "lm_head.bias": np.zeros(ROWS, np.float32),
        "pre_classifier.bias": np.zeros(WIDTH, np.float32),
        "qa_outputs.bias": np.zeros(2, np.float32),
        "vocab_transform.bias": np.zeros(WIDTH, np.float32),
    }
    folder = publish(tmp_path / "m", family, tensors=tensors | extras)
    assert_converted(folder, tensors, config_of(family), prefix=prefix)


def test_ct2_convert_reads_layer_norms_by_their_old_names(tmp_path: Path) -> None:
    tensors = tensors_of("bert")
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): tensor
        for name, tensor in tensors.items()
    }
    assert old.keys() != tensors.keys()
    assert_converted(publish(tmp_path / "m", tensors=old), tensors, config_of("bert"))


def test_ct2_convert_reads_float16_weights(tmp_path: Path) -> None:
    tensors = {name: tensor.astype(np.float16) for name, tensor in tensors_of("bert").items()}
    assert_converted(publish(tmp_path / "m", tensors=tensors), tensors, config_of("bert"))


def test_ct2_convert_reads_bfloat16_weights(tmp_path: Path) -> None:
    tensors = tensors_of("bert")
    folder = publish(tmp_path / "m")
    (folder / "model.safetensors").write_bytes(bfloat16_file(tensors))
    rounded = {
        name: (tensor.view(np.uint32) & 0xFFFF0000).view(np.float32)
        for name, tensor in tensors.items()
    }
    assert_converted(folder, rounded, config_of("bert"))


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_ct2_convert_repeats_itself_byte_by_byte(tmp_path: Path, quantization: str) -> None:
    folder = publish(tmp_path / "m")
    for name in ("first", "second"):
        convert(folder, tmp_path / name, quantization=quantization)
    files = sorted(path.name for path in (tmp_path / "first").iterdir())
    assert files == ["config.json", "model.bin", "vocabulary.json"]
    for name in files:
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()


def vocabulary(folder: Path, out: Path) -> list[str]:
    convert(folder, out, quantization="int8")
    tokens: list[str] = json.loads((out / "vocabulary.json").read_text("utf-8"))
    return tokens


def test_ct2_convert_takes_the_vocabulary_from_the_tokenizer(tmp_path: Path) -> None:
    folder = publish(tmp_path / "m", tokenizer=tokenizer_json(ROWS - 2))
    tokens = vocabulary(folder, tmp_path / "ct2")
    assert tokens[:2] == ["[UNK]", "word1"]
    assert tokens[-3:] == [f"word{ROWS - 3}", "[unused row 38]", "[unused row 39]"]


def test_ct2_convert_takes_the_vocabulary_from_a_unigram_tokenizer(tmp_path: Path) -> None:
    pieces = [[f"piece{i}", -1.0] for i in range(ROWS)]
    document = {"model": {"type": "Unigram", "vocab": pieces}, "added_tokens": None}
    folder = publish(tmp_path / "m", tokenizer=document)
    assert vocabulary(folder, tmp_path / "ct2") == [f"piece{i}" for i in range(ROWS)]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_ct2_convert_takes_the_vocabulary_from_vocab_txt(tmp_path: Path, end: str) -> None:
    folder = publish(tmp_path / "m")
    (folder / "tokenizer.json").unlink()
    # U+2028 and U+0085 are lines to str.splitlines, and tokens to BERT.
    tokens = ["[UNK]", "\u2028", "\u0085", *(f"word{i}" for i in range(3, ROWS))]
    (folder / "vocab.txt").write_bytes("".join(token + end for token in tokens).encode())
    assert vocabulary(folder, tmp_path / "ct2") == tokens


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model_type": "mpnet"}, "model_type 'mpnet'"),
        ({"model_type": None}, "model_type 'None'"),
        ({"hidden_act": "mish"}, "hidden_act 'mish'"),
        ({"hidden_act": ["gelu"]}, "hidden_act ['gelu']"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type 'relative_key'"),
        ({"is_decoder": True}, "is_decoder True"),
        ({"num_attention_heads": 5}, "32 cannot be divided among 5 heads"),
        ({"num_attention_heads": 0}, "num_attention_heads: expected a whole number of at least 1"),
        ({"vocab_size": "40"}, "vocab_size: expected a whole number of at least 1, found '40'"),
        ({"intermediate_size": None}, "intermediate_size: expected a whole number"),
        ({"layer_norm_eps": 0}, "layer_norm_eps: expected a number in (0, 1), found 0"),
        ({"num_hidden_layers": 3}, "tensor encoder.layer.2.attention.self.query.weight is missing"),
        ({"num_hidden_layers": 1}, "tensor encoder.layer.1.attention.output.LayerNorm.bias and 15"),
        ({"vocab_size": 41}, "expected shape [41, 32], found [40, 32]"),
    ],
)
def test_ct2_convert_refuses_a_config_that_it_does_not_know(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    folder = publish(tmp_path / "m", config=config_of("bert", **changes))
    assert_refused(folder, UnsupportedModel, said)


def test_ct2_convert_refuses_a_padding_id_behind_the_positions(tmp_path: Path) -> None:
    config = config_of("roberta", pad_token_id=POSITIONS - 1)
    folder = publish(tmp_path / "m", "roberta", config=config)
    assert_refused(folder, UnsupportedModel, "pad_token_id 23 leaves none of 24 positions")


def assert_refused(folder: Path, error: type[SpratError], said: str) -> None:
    with pytest.raises(error) as caught:
        convert(folder, folder.parent / "out" / "ct2", quantization="int8")
    assert said in str(caught.value)
    assert not (folder.parent / "out").exists() or not any((folder.parent / "out").iterdir())


def _without(name: str) -> Callable[[Tensors], object]:
    return lambda tensors: tensors.pop(name)


def _with(name: str, tensor: npt.NDArray[Any]) -> Callable[[Tensors], object]:
    return lambda tensors: tensors.update({name: tensor})


QUERY = "encoder.layer.0.attention.self.query"


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        (_without(f"{QUERY}.bias"), UnsupportedModel, f"{QUERY}.bias is missing"),
        (
            _with(f"{QUERY}.bias", np.zeros(31, np.float32)),
            UnsupportedModel,
            f"{QUERY}.bias: expected shape [32], found [31]",
        ),
        (
            _with(f"{QUERY}.bias", np.zeros(32, np.int8)),
            UnsupportedModel,
            f"{QUERY}.bias: expected type F32 or F16 or BF16, found I8",
        ),
        (
            _with("encoder.relative_attention_bias.weight", np.zeros(2, np.float32)),
            UnsupportedModel,
            "tensor encoder.relative_attention_bias.weight: not a part of this architecture",
        ),
        (
            _with(f"{QUERY}.bias", np.full(32, np.nan, np.float32)),
            CorruptFile,
            f"tensor {QUERY}.bias is not finite",
        ),
    ],
    ids=["missing", "shape", "type", "unknown", "nan"],
)
def test_ct2_convert_refuses_tensors_that_do_not_fit(
    tmp_path: Path,
    change: Callable[[Tensors], object],
    error: type[SpratError],
    said: str,
) -> None:
    tensors = tensors_of("bert")
    change(tensors)
    assert_refused(publish(tmp_path / "m", tensors=tensors), error, said)


@pytest.mark.parametrize("share", [0.0, 0.00001, 0.01, 0.5, 0.99999])
def test_ct2_convert_refuses_a_cut_safetensors_file(tmp_path: Path, share: float) -> None:
    folder = publish(tmp_path / "m")
    path = folder / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    assert_refused(folder, CorruptFile, "not a whole safetensors file")


def test_ct2_convert_refuses_a_header_that_is_no_json(tmp_path: Path) -> None:
    folder = publish(tmp_path / "m")
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes().replace(b'"F32"', b'"F32}', 1))
    assert_refused(folder, CorruptFile, "not a whole safetensors file")


@pytest.mark.parametrize(
    ("name", "content", "error", "said"),
    [
        ("model.safetensors", None, UnsupportedModel, "only safetensors weights are read"),
        ("config.json", None, UnsupportedModel, "config.json: missing"),
        ("config.json", b"{", CorruptFile, "not JSON"),
        ("config.json", b"\xff", CorruptFile, "not JSON"),
        ("config.json", b"[]", CorruptFile, "expected an object, found list"),
        ("tokenizer.json", None, UnsupportedModel, "neither tokenizer.json nor vocab.txt"),
        ("tokenizer.json", b"{}", CorruptFile, "model.vocab or added_tokens is malformed"),
        ("tokenizer.json", b'{"model": {"vocab": {}}}', CorruptFile, "holds no tokens"),
        ("tokenizer.json", b'{"model": {"vocab": {"a": 40}}}', UnsupportedModel, "up to 40"),
        ("tokenizer.json", b'{"model": {"vocab": {"a": -1}}}', UnsupportedModel, "from -1"),
    ],
)
def test_ct2_convert_refuses_missing_and_malformed_files(
    tmp_path: Path, name: str, content: bytes | None, error: type[SpratError], said: str
) -> None:
    folder = publish(tmp_path / "m")
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content)
    assert_refused(folder, error, said)


def test_ct2_convert_refuses_a_vocab_txt_that_is_not_utf8(tmp_path: Path) -> None:
    folder = publish(tmp_path / "m")
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").write_bytes(b"[UNK]\n\xff\n")
    assert_refused(folder, CorruptFile, "byte 6 is not UTF-8")


def saved_weights(folder: Path) -> dict[str, npt.NDArray[Any]]:
    """The matrices of a model.bin and their scales, read by its layout."""
    content = (folder / "model.bin").read_bytes()
    at = 0

    def number(code: str) -> Any:
        nonlocal at
        (value,) = struct.unpack_from(f"<{code}", content, at)
        at += struct.calcsize(f"<{code}")
        return value

    def text() -> str:
        nonlocal at
        size = number("H")
        at += size
        return content[at - size : at - 1].decode()

    number("I"), text(), number("I")
    found = {}
    for _ in range(number("I")):
        name = text()
        shape = [number("I") for _ in range(number("B"))]
        dtype = (np.float32, np.int8, np.int16, np.int32)[number("B")]
        size = number("I")
        found[name] = np.frombuffer(content[at : at + size], dtype).reshape(shape)
        at += size
    return {name: array for name, array in found.items() if "weight" in name}


def matrices(tmp_path: Path, quantization: str) -> Iterator[tuple[str, Array, Array, Array]]:
    """Name, published weights, integers and scales of every matrix of a small BERT."""
    folder = publish(tmp_path / "m")
    convert(folder, tmp_path / "exact", quantization="float32")
    convert(folder, tmp_path / "ct2", quantization=quantization)
    exact, rounded = saved_weights(tmp_path / "exact"), saved_weights(tmp_path / "ct2")
    names = [name for name in exact if name.endswith("weight")]
    assert len(names) == 1 + 2 * 4
    for name in names:
        assert rounded[name].dtype == np.int8
        yield (
            name,
            *(a.astype(np.float64) for a in (exact[name], rounded[name])),
            rounded[f"{name}_scale"].astype(np.float64)[:, None],
        )


@pytest.mark.parametrize("quantization", ["int8", "int8_unsaturated"])
def test_ct2_convert_moves_no_weight_by_more_than_half_a_step(
    tmp_path: Path, quantization: str
) -> None:
    for _, exact, rounded, scale in matrices(tmp_path, quantization):
        assert np.abs(rounded - exact * scale).max() <= 0.5 + 1e-4
        assert np.abs(rounded).max() == 127 or quantization != "int8"


def test_ct2_convert_int8_unsaturated_fits_16_bits_on_any_activation(tmp_path: Path) -> None:
    saturated = []
    for quantization in ("int8", "int8_unsaturated"):
        out = tmp_path / quantization
        out.mkdir()
        pairs = [
            255 * (rounded[:, ::2] + rounded[:, 1::2])
            for name, _, rounded, _ in matrices(out, quantization)
            if "embeddings" not in name
        ]
        saturated.append(any(sums.max() > 32767 or sums.min() < -32768 for sums in pairs))
    assert saturated == [True, False]


def test_ct2_convert_int8_unsaturated_gives_up_no_more_than_it_must(tmp_path: Path) -> None:
    for name, exact, _, scale in matrices(tmp_path, "int8_unsaturated"):
        most = np.abs(exact).max(axis=1)
        if "embeddings" not in name:
            sums = exact[:, ::2] + exact[:, 1::2]
            same = np.sign(exact[:, ::2]) == np.sign(exact[:, 1::2])
            most = np.maximum(most, (np.abs(sums) * same).max(axis=1))
        np.testing.assert_allclose(scale[:, 0], 127 / most, rtol=1e-6)


AVX2 = """
import sys
import numpy as np
from ctranslate2 import Encoder, StorageView
rows = np.random.default_rng(3).integers(0, 40, (5, 9), dtype=np.int32)
views = StorageView.from_array(rows), StorageView.from_array(np.full(5, 9, np.int32))
for folder in sys.argv[1:]:
    hidden = Encoder(folder, intra_threads=1).forward_batch(*views).last_hidden_state
    print(np.asarray(hidden).astype(np.float64).tobytes().hex())
"""


def test_ct2_convert_int8_unsaturated_is_the_same_with_avx2(tmp_path: Path) -> None:
    folder = publish(tmp_path / "m")
    convert(folder, tmp_path / "ct2", quantization="int8_unsaturated")
    found = []
    for isa in ("AVX2", "DEFAULT"):
        done = subprocess.run(
            [sys.executable, "-c", AVX2, str(tmp_path / "ct2")],
            env={**os.environ, "CT2_USE_MKL": "0", "ONEDNN_MAX_CPU_ISA": isa},
            capture_output=True,
            text=True,
            check=True,
        )
        found.append(np.frombuffer(bytes.fromhex(done.stdout.strip()), np.float64))
    # Attention is computed in float32 by other kernels, which may round otherwise.
    np.testing.assert_allclose(found[0], found[1], atol=0.02)
    assert np.abs(found[0] - found[1]).mean() < 1e-4


@pytest.mark.parametrize("quantization", ["int4", "", None])
def test_ct2_convert_refuses_another_quantization(tmp_path: Path, quantization: Any) -> None:
    with pytest.raises(
        ConfigError, match="quantization: expected int8 or int8_unsaturated or float32, got"
    ):
        convert(publish(tmp_path / "m"), tmp_path / "ct2", quantization=quantization)


def test_ct2_convert_makes_the_folders_that_are_missing(tmp_path: Path) -> None:
    folder = publish(tmp_path / "m")
    (tmp_path / "empty").mkdir()
    for out in (tmp_path / "a" / "b" / "ct2", tmp_path / "empty"):
        convert(folder, out, quantization="int8")
        assert (out / "model.bin").is_file()


def test_ct2_convert_never_writes_into_a_folder_with_files(tmp_path: Path) -> None:
    folder = publish(tmp_path / "m")
    (tmp_path / "ct2").mkdir()
    (tmp_path / "ct2" / "mine").write_text("kept")
    with pytest.raises(StoreError, match="cannot be written"):
        convert(folder, tmp_path / "ct2", quantization="int8")
    assert [path.name for path in (tmp_path / "ct2").iterdir()] == ["mine"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ct2", "m"]


def test_ct2_convert_leaves_nothing_behind_when_the_disk_is_full(tmp_path: Path) -> None:
    folder = publish(tmp_path / "m")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(StoreError, match="cannot be written"):
            convert(folder, tmp_path / "ct2", quantization="float32")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_ct2_convert_survives_what_an_interrupted_one_left(tmp_path: Path) -> None:
    folder = publish(tmp_path / "m")
    (tmp_path / "ct2.part").mkdir()
    (tmp_path / "ct2.part" / "model.bin").write_bytes(b"half")
    convert(folder, tmp_path / "ct2", quantization="int8")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ct2", "m"]


def test_ct2_convert_needs_no_converters(tmp_path: Path) -> None:
    folder = publish(tmp_path / "m")
    program = (
        "import sys; from pathlib import Path; from sprat.quantize.ct2 import convert\n"
        "convert(Path(sys.argv[1]), Path(sys.argv[2]), quantization='int8')\n"
        "assert not {'transformers', 'ctranslate2.converters'} & set(sys.modules)"
    )
    arguments = [sys.executable, "-c", program, str(folder), str(tmp_path / "ct2")]
    subprocess.run(arguments, check=True, cwd=tmp_path)


def test_ct2_convert_leaves_the_published_files_alone(tmp_path: Path) -> None:
    folder = publish(tmp_path / "m")
    shutil.copytree(folder, tmp_path / "before")
    convert(folder, tmp_path / "ct2", quantization="int8")
    for path in (tmp_path / "before").iterdir():
        assert (folder / path.name).read_bytes() == path.read_bytes()


def test_ct2_convert_says_which_file_it_means(tmp_path: Path) -> None:
    folder = publish(tmp_path / "m")
    (folder / "model.safetensors").write_bytes(save({"a": np.zeros(1, np.float32)}))
    assert_refused(folder, UnsupportedModel, str(folder / "model.safetensors"))
