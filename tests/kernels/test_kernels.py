"""Which implementation `sprat.kernels` picks, and that implementations look alike."""

from __future__ import annotations

import doctest
import inspect
import os
import subprocess
import sys
from importlib import import_module
from pkgutil import iter_modules

import pytest
from reruns import rerun

from sprat.kernels import _array, _labels, _logits, _text, _wordpiece, reference

SHOW = "import sprat.kernels as k; print(k.implementation, k.isa, k.pool.__module__)"
BEST = "avx2" if _array.AVX2 else "baseline"
NATIVE = {
    "NgramIndex": _text.NgramIndex,
    "StaticEmbedding": _wordpiece.StaticEmbedding,
    "StopMatcher": _text.StopMatcher,
    "Utf8Stream": _text.Utf8Stream,
    "WordPiece": _wordpiece.WordPiece,
    "argmax": _logits.argmax,
    "bias_logits": _logits.bias_logits,
    "chunk": _array.chunk,
    "classify_head": _array.classify_head,
    "embedding_bag": _array.embedding_bag,
    "length_order": _array.length_order,
    "log_softmax": _logits.log_softmax,
    "mask_logits": _logits.mask_logits,
    "pack": _array.pack,
    "penalize_logits": _logits.penalize_logits,
    "pool": _array.pool,
    "sample": _logits.sample,
    "score_trie": _labels.score_trie,
    "viterbi": _labels.viterbi,
}
HAVE_VARIANTS = [
    *("test_embedding.py", "test_head.py", "test_logits.py", "test_sampling.py"),
    *("test_pool.py", "test_static.py", "test_trie.py", "test_viterbi.py"),
]


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if k not in ("SPRAT_KERNELS", "SPRAT_ISA")}
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**clean, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("environment", "shown"),
    [
        ({}, f"native {BEST} sprat.kernels._array"),
        ({"SPRAT_KERNELS": "native"}, f"native {BEST} sprat.kernels._array"),
        ({"SPRAT_ISA": "baseline"}, "native baseline sprat.kernels._array"),
        ({"SPRAT_KERNELS": "reference"}, "reference python sprat.kernels.reference.pooling"),
    ],
)
def test_kernels_picks_the_implementation(environment: dict[str, str], shown: str) -> None:
    done = run(SHOW, **environment)
    assert done.stdout.strip() == shown, done.stderr


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"SPRAT_KERNELS": "fast"}, "SPRAT_KERNELS: expected native or reference, got 'fast'"),
        ({"SPRAT_KERNELS": ""}, "SPRAT_KERNELS: expected native or reference, got ''"),
        ({"SPRAT_ISA": "sse9"}, "SPRAT_ISA: expected avx2 or baseline, got 'sse9'"),
    ],
)
def test_kernels_refuses_another_choice(environment: dict[str, str], message: str) -> None:
    done = run(SHOW, **environment)
    assert done.returncode == 1
    assert done.stderr.strip().endswith(f"ValueError: {message}")


def test_kernels_refuses_instructions_that_the_cpu_lacks() -> None:
    absent = "import sprat.kernels._array as a; a.AVX2 = False"
    forget = "import sys; del sys.modules['sprat.kernels']"
    done = run(f"{absent}; {forget}; {SHOW}", SPRAT_ISA="avx2")
    assert done.returncode == 1
    assert "SPRAT_ISA: avx2 was asked for, but this CPU does not have" in done.stderr


@pytest.mark.parametrize("module", ["_array", "_labels", "_logits", "_text", "_wordpiece"])
def test_kernels_never_falls_back_silently(module: str) -> None:
    done = run(f"import sys; sys.modules['sprat.kernels.{module}'] = None; {SHOW}")
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: the native kernels of sprat cannot be loaded")
    assert "pip install" in last
    assert "SPRAT_KERNELS=reference" in last


def test_kernels_reference_needs_no_extension() -> None:
    modules = ("_array", "_labels", "_logits", "_text", "_wordpiece")
    names = [f"sprat.kernels.{name}" for name in modules]
    absent = f"import sys; sys.modules.update(dict.fromkeys({names}))"
    done = run(f"{absent}; {SHOW}", SPRAT_KERNELS="reference")
    assert done.stdout.startswith("reference"), done.stderr


@pytest.mark.parametrize(
    ("native", "specified"),
    [
        (_array.chunk, reference.chunk),
        (_array.classify_head, reference.classify_head),
        (_array.embedding_bag, reference.embedding_bag),
        (_array.length_order, reference.length_order),
        (_array.pack, reference.pack),
        (_array.pool, reference.pool),
        (_labels.score_trie, reference.score_trie),
        (_labels.viterbi, reference.viterbi),
        (_logits.argmax, reference.argmax),
        (_logits.bias_logits, reference.bias_logits),
        (_logits.log_softmax, reference.log_softmax),
        (_logits.mask_logits, reference.mask_logits),
        (_logits.penalize_logits, reference.penalize_logits),
        (_logits.sample, reference.sample),
        (_text.NgramIndex, reference.NgramIndex),
        (_text.NgramIndex.append, reference.NgramIndex.append),
        (_text.NgramIndex.draft, reference.NgramIndex.draft),
        (_text.StopMatcher, reference.StopMatcher),
        (_text.StopMatcher.feed, reference.StopMatcher.feed),
        (_text.StopMatcher.flush, reference.StopMatcher.flush),
        (_text.Utf8Stream, reference.Utf8Stream),
        (_text.Utf8Stream.feed, reference.Utf8Stream.feed),
        (_text.Utf8Stream.flush, reference.Utf8Stream.flush),
        (_wordpiece.StaticEmbedding, reference.StaticEmbedding),
        (_wordpiece.StaticEmbedding.encode_batch, reference.StaticEmbedding.encode_batch),
        (_wordpiece.WordPiece, reference.WordPiece),
        (_wordpiece.WordPiece.encode_batch, reference.WordPiece.encode_batch),
        (_wordpiece.WordPiece.from_tokenizer_json, reference.WordPiece.from_tokenizer_json),
        (_wordpiece.WordPiece.from_vocab, reference.WordPiece.from_vocab),
        (_wordpiece.WordPiece.tokens, reference.WordPiece.tokens),
    ],
)
def test_kernels_look_alike(native: object, specified: object) -> None:
    assert native.__doc__ == specified.__doc__
    if inspect.isroutine(native):
        assert callable(specified)
        got, expected = inspect.signature(native), inspect.signature(specified)
        assert [*got.parameters] == [*expected.parameters]
        assert [p.default for p in got.parameters.values()] == [
            p.default for p in expected.parameters.values()
        ]


@pytest.mark.parametrize("names", [{}, NATIVE], ids=["reference", "native"])
def test_kernels_examples_run(names: dict[str, object]) -> None:
    modules = [
        import_module(module.name)
        for module in iter_modules(reference.__path__, "sprat.kernels.reference.")
    ]
    results = [doctest.testmod(module, extraglobs=names) for module in modules]
    assert sum(result.attempted for result in results) > 0
    assert not any(result.failed for result in results)


def test_kernels_pass_their_tests_without_avx2() -> None:
    rerun(HAVE_VARIANTS, SPRAT_ISA="baseline")
