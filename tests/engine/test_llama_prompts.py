from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from llamas import CONTEXT, STORIES, generate, patched, tokens

from sprat.engine.base import Start
from sprat.engine.llama import LlamaEngine
from sprat.errors import (
    EngineError,
    InputTooLong,
    InvalidInput,
)
from sprat.values import Message, Sampling


def test_llama_refuses_an_empty_prompt(engine: LlamaEngine) -> None:
    with pytest.raises(InvalidInput, match="at least 1 token, got none"):
        engine.start(Start(0, np.array([], np.int32), Sampling()))


@pytest.mark.parametrize("length", [CONTEXT, CONTEXT + 1, 5000])
def test_llama_refuses_a_prompt_that_fills_the_context(engine: LlamaEngine, length: int) -> None:
    with pytest.raises(InputTooLong) as caught:
        engine.start(Start(0, np.full(length, 20, np.int32), Sampling()))
    assert (caught.value.tokens, caught.value.limit) == (length, CONTEXT - 1)


@pytest.mark.parametrize("token", [-1, 49152, 2**31 - 1])
def test_llama_refuses_ids_of_another_vocabulary(engine: LlamaEngine, token: int) -> None:
    ids = np.array([5, token], np.int32)
    with pytest.raises(InvalidInput, match="token ids from 0 to 49151"):
        engine.start(Start(0, ids, Sampling()))
    with pytest.raises(InvalidInput, match="token ids from 0 to 49151"):
        engine.token_texts(ids)
    assert not engine.busy()


def test_llama_refuses_a_sequence_that_is_live(engine: LlamaEngine) -> None:
    start = Start(3, tokens(engine, "Hi"), Sampling())
    engine.start(start)
    with pytest.raises(EngineError, match="sequence 3 is live already"):
        engine.start(start)


def test_llama_tokenizes_special_text_only_if_asked(engine: LlamaEngine) -> None:
    text = "<|im_start|>user"
    special = engine.tokenize(text, add_special=False, parse_special=True)
    plain = engine.tokenize(text, add_special=False, parse_special=False)
    assert special[0] == 1
    assert 1 not in plain
    assert "".join(engine.token_texts(plain)) == "".join(engine.token_texts(special)) == text


@pytest.mark.parametrize(
    "text", ["", "\0", "a\0b", "é🐟", " \n\t ", "x" * 1_000_000, "🐟" * 50_000]
)
def test_llama_tokenizes_any_text(engine: LlamaEngine, text: str) -> None:
    ids = engine.tokenize(text, add_special=True, parse_special=True)
    assert ids.dtype == np.int32
    data = b"".join(engine._vocabulary.piece(i) for i in ids.tolist())
    assert data == text.encode()


def test_llama_refuses_to_tokenize_lone_surrogates(engine: LlamaEngine) -> None:
    with pytest.raises(InvalidInput, match="lone surrogate at character 2"):
        engine.tokenize("ab\ud800", add_special=True, parse_special=False)


def test_llama_token_texts_show_half_a_code_point_as_replacement(engine: LlamaEngine) -> None:
    texts = engine.token_texts(tokens(engine, "🐟"))
    assert len(texts) > 1
    assert "\ufffd" in texts
    assert engine.token_texts(np.array([], np.int32)) == ()


def test_llama_tokenizes_on_any_thread_while_it_generates(engine: LlamaEngine) -> None:
    messages = [Message("user", "How deep is the sea?")]
    expected = engine.chat_tokens(messages).tolist()
    results: list[bool] = []

    def work() -> None:
        for _ in range(100):
            results.append(engine.chat_tokens(messages).tolist() == expected)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    generate(engine, STORIES[0])
    for thread in threads:
        thread.join()
    assert results == [True] * 300


def test_llama_text_may_have_more_tokens_than_bytes(tiny: Path, tmp_path: Path) -> None:
    """Where a space is a sign of three bytes that the vocabulary lacks."""
    path = patched(tiny, tmp_path / "signless.gguf", "\u2581".encode(), b"sea")
    engine = LlamaEngine(path, context_length=256, sequence_limit=1, threads=1)
    ids = engine.tokenize(" " * 100, add_special=False, parse_special=False)
    assert len(ids) >= 300
    assert "".join(engine.token_texts(ids)).strip("\ufffd") == ""
    engine.close()
