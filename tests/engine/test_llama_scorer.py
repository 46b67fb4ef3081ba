from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from tiny_models import gguf_file

from sprat.engine.llama import LlamaEngine
from sprat.engine.llama_scorer import BATCH_TOKENS, Scorer
from sprat.errors import CorruptFile, EngineError, InputTooLong
from sprat.values import IntArray


@pytest.fixture(scope="module")
def scorer(tiny: Path) -> Iterator[Scorer]:
    made = Scorer(tiny, context_length=512, threads=1)
    yield made
    made.close()


def whole(scorer: Scorer, ids: IntArray) -> npt.NDArray[np.float32]:
    return np.concatenate([block.copy() for block in scorer.logits(ids)])


def test_llama_scorer_tokenizes_as_the_engine_does(scorer: Scorer, tiny: Path) -> None:
    engine = LlamaEngine(tiny, context_length=64, sequence_limit=1, threads=1)
    try:
        expected = engine.tokenize("a <s> b", add_special=True, parse_special=False)
    finally:
        engine.close()
    np.testing.assert_array_equal(scorer.tokenize("a <s> b"), expected)


@pytest.mark.parametrize("tokens", [1, 2, BATCH_TOKENS - 1, BATCH_TOKENS, BATCH_TOKENS + 1, 300])
def test_llama_scorer_gives_a_row_for_each_token(scorer: Scorer, tokens: int) -> None:
    ids = np.arange(3, 3 + tokens, dtype=np.int32) % 250
    blocks = [len(block) for block in scorer.logits(ids)]
    assert sum(blocks) == tokens
    assert max(blocks) <= BATCH_TOKENS


def test_llama_scorer_blocks_continue_one_text(scorer: Scorer) -> None:
    ids = np.arange(200, dtype=np.int32)
    # A row depends on the tokens before it only, in whichever block they were.
    np.testing.assert_allclose(whole(scorer, ids[:150]), whole(scorer, ids)[:150], atol=1e-5)
    other = ids.copy()
    other[0] = 7
    assert (
        np.abs(whole(scorer, other)[BATCH_TOKENS:] - whole(scorer, ids)[BATCH_TOKENS:]).max() > 1e-4
    )


def test_llama_scorer_forgets_the_text_before(scorer: Scorer) -> None:
    ids = np.arange(10, 30, dtype=np.int32)
    first = whole(scorer, ids)
    whole(scorer, ids[::-1].copy())
    np.testing.assert_array_equal(whole(scorer, ids), first)


def test_llama_scorer_refuses_what_would_abort(scorer: Scorer) -> None:
    with pytest.raises(InputTooLong):
        list(scorer.logits(np.zeros(513, np.int32)))
    for bad in (-1, scorer.vocabulary.size):
        with pytest.raises(EngineError, match="expected token ids in"):
            list(scorer.logits(np.array([0, bad], np.int32)))
    assert list(scorer.logits(np.zeros(0, np.int32))) == []


def test_llama_scorer_has_no_more_context_than_was_trained(tmp_path: Path) -> None:
    path = tmp_path / "short.gguf"
    path.write_bytes(gguf_file(tmp_path, context_length=40))
    scorer = Scorer(path, context_length=512, threads=1)
    assert scorer.context_length == 40
    scorer.close()
    scorer.close()  # a second time does nothing


def test_llama_scorer_refuses_a_broken_file(tmp_path: Path) -> None:
    (tmp_path / "broken.gguf").write_bytes(b"GGUF" + bytes(64))
    with pytest.raises(CorruptFile, match=r"llama\.cpp cannot load it"):
        Scorer(tmp_path / "broken.gguf", context_length=64, threads=1)
