"""Generators on llama.cpp: many sequences in one batch, through the low-level API.

One context holds the cells of all sequences (``kv_unified``), so memory follows what is in use, not
the longest that each sequence might become. Every step plans a batch, decodes it, and only then
moves the sequences on: a batch that fails leaves those that were not in it as they were.

What aborts a llama.cpp process is made impossible here: a batch is never larger than ``n_batch``,
has at most one output a sequence, and names only sequences below ``n_seq_max``.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sprat.engine import llama_lib
from sprat.engine.base import Progress, Start
from sprat.engine.chat import ChatTemplate
from sprat.engine.llama_sampler import Sampler
from sprat.engine.stream import TextStream
from sprat.errors import CorruptFile, EngineError, InvalidInput, TaskNotSupported
from sprat.values import FinishReason, IntArray, Message

BATCH_TOKENS = 512
"""Most tokens of a batch. Prefill gains little beyond it, and buffers grow with it."""

CELLS_PER_SEQUENCE = 1024
"""Default room for a sequence, where the trained context does not ask for more."""

FLASH_ATTENTION_OFF = 0
"""Off is 5 to 8 % faster on AVX2 for prompts of some hundred tokens."""


@dataclass(eq=False, slots=True)
class _Sequence:
    """A live sequence.

    Attributes
    ----------
    slot : int
        Its number in the context.
    ids : int32[T]
        Tokens that are still to be decoded: the rest of the prompt, or the last sampled token.
    position : int
        Tokens that are decoded.
    reserved : int
        Cells that it may grow to.
    """

    number: int
    slot: int
    ids: IntArray
    position: int
    reserved: int
    left: int
    sampler: Sampler
    stream: TextStream
    is_prompt: bool = True


class LlamaEngine:
    """A generative model. See `sprat.engine.base.GenerativeEngine`.

    Parameters
    ----------
    path : Path
        GGUF file.
    context_length : int, optional
        Most tokens of a sequence; absent, or more than that: as trained.
    sequence_limit : int
        Most live sequences, 1 to 256.
    cells : int, optional
        Tokens that all sequences together may hold, at least ``context_length``; absent: room for
        one of full length or for 1,024 tokens each, whichever is more.
    threads : int
        Compute threads until `step` says otherwise.

    Raises
    ------
    EngineError
        llama.cpp is missing or does not fit this machine.
    CorruptFile
        llama.cpp cannot load the file.
    """

    def __init__(
        self,
        path: Path,
        *,
        context_length: int | None = None,
        sequence_limit: int = 8,
        cells: int | None = None,
        threads: int,
    ) -> None:
        self._lib = lib = llama_lib.load()
        most = lib.llama_max_parallel_sequences()
        if not 1 <= sequence_limit <= most:
            raise EngineError(f"expected 1 to {most} sequences, got {sequence_limit}")
        self._model = _load_model(lib, path)
        self._context = None
        try:
            trained = int(lib.llama_model_n_ctx_train(self._model))
            self.context_length = min(trained, context_length or trained)
            self.sequence_limit = sequence_limit
            self._cells = cells or max(self.context_length, sequence_limit * CELLS_PER_SEQUENCE)
            if self._cells < self.context_length:
                raise EngineError(
                    f"{self._cells} cells cannot hold one sequence of {self.context_length} tokens"
                )
            self._context = self._make_context(threads)
        except BaseException:
            self.close()
            raise
        self._memory = lib.llama_get_memory(self._context)
        self._vocab = lib.llama_model_get_vocab(self._model)
        self._threads = threads
        self._batch = _Batch(lib)
        self._live: dict[int, _Sequence] = {}
        self._free_slots = list(range(sequence_limit))
        self._reserved = 0
        self._turn = 0

    def _make_context(self, threads: int) -> Any:
        lib = self._lib
        params = lib.llama_context_default_params()
        params.n_ctx = self._cells
        params.n_batch = params.n_ubatch = BATCH_TOKENS
        params.n_seq_max = self.sequence_limit
        params.n_outputs_max = self.sequence_limit
        params.n_threads = params.n_threads_batch = threads
        params.flash_attn_type = FLASH_ATTENTION_OFF
        params.kv_unified = True
        params.no_perf = True
        context = lib.llama_init_from_model(self._model, params)
        if not context:
            raise EngineError(
                f"llama.cpp cannot make a context of {self._cells} cells: {_last_error()}"
            )
        return context

    # -- any thread --------------------------------------------------------------------------

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> IntArray:
        """See `sprat.engine.base.GenerativeEngine.tokenize`."""
        data = text.encode("utf-8")
        # A token has at least one byte; two more for special tokens at the ends.
        room = len(data) + 2
        ids = np.empty(room, np.int32)
        pointer = ids.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
        count = self._lib.llama_tokenize(
            self._vocab, data, len(data), pointer, room, add_special, parse_special
        )
        if count < 0:
            raise EngineError(f"llama.cpp made {-count} tokens of {len(data)} bytes")
        return ids[:count].copy()

    def token_texts(self, ids: IntArray) -> tuple[str, ...]:
        """See `sprat.engine.base.GenerativeEngine.token_texts`."""
        return tuple(self._piece(i, special=True).decode("utf-8", "replace") for i in ids.tolist())

    def chat_tokens(self, messages: Sequence[Message]) -> IntArray:
        """See `sprat.engine.base.GenerativeEngine.chat_tokens`."""
        parts = self._template.render(messages)
        has_bos = bool(parts) and parts[0].text.startswith(self._bos) and self._bos != ""
        rows = [
            self.tokenize(
                part.text,
                add_special=index == 0 and not has_bos,
                parse_special=not part.is_content,
            )
            for index, part in enumerate(parts)
        ]
        return np.concatenate(rows) if rows else np.empty(0, np.int32)

    @functools.cached_property
    def _template(self) -> ChatTemplate:
        source = self._lib.llama_model_chat_template(self._model, None)
        if source is None:
            raise TaskNotSupported("this model has no chat template; use a raw prompt")
        eos = self._lib.llama_vocab_eos(self._vocab)
        return ChatTemplate(source.decode("utf-8"), bos=self._bos, eos=self._special_text(eos))

    @functools.cached_property
    def _bos(self) -> str:
        return self._special_text(self._lib.llama_vocab_bos(self._vocab))

    def _special_text(self, token: int) -> str:
        return "" if token < 0 else self._piece(token, special=True).decode("utf-8", "replace")

    def _piece(self, token: int, *, special: bool) -> bytes:
        """The bytes of a token; of special ones only where asked."""
        size = 64
        while True:
            buffer = ctypes.create_string_buffer(size)
            length = self._lib.llama_token_to_piece(self._vocab, token, buffer, size, 0, special)
            if length >= 0:
                return buffer.raw[:length]
            size = -length

    # -- owner thread ------------------------------------------------------------------------

    def busy(self) -> bool:
        """See `sprat.engine.base.GenerativeEngine.busy`."""
        return bool(self._live)

    def has_room(self, tokens: int) -> bool:
        """See `sprat.engine.base.GenerativeEngine.has_room`."""
        grown = min(tokens, self.context_length)
        return bool(self._free_slots) and self._reserved + grown <= self._cells

    def start(self, start: Start) -> None:
        """See `sprat.engine.base.GenerativeEngine.start`."""
        tokens = len(start.prompt)
        if not 1 <= tokens < self.context_length:
            raise InvalidInput(
                f"prompt: expected 1 to {self.context_length - 1} tokens, got {tokens}",
                field="prompt",
            )
        reserved = min(tokens + start.sampling.max_tokens, self.context_length)
        if not self.has_room(reserved):
            raise EngineError(f"no room for {reserved} more tokens, or for one more sequence")
        self._reserved += reserved
        self._live[start.sequence] = _Sequence(
            number=start.sequence,
            slot=self._free_slots.pop(),
            ids=start.prompt,
            position=0,
            reserved=reserved,
            left=reserved - tokens,
            sampler=Sampler(
                self._lib,
                self._context,
                start.sampling,
                start.prompt,
                vocabulary_size=self._lib.llama_vocab_n_tokens(self._vocab),
            ),
            stream=TextStream(start.sampling.stop),
        )

    def stop(self, sequence: int) -> None:
        """See `sprat.engine.base.GenerativeEngine.stop`."""
        found = self._live.pop(sequence, None)
        if found is not None:
            self._lib.llama_memory_seq_rm(self._memory, found.slot, -1, -1)
            self._free_slots.append(found.slot)
            self._reserved -= found.reserved
            found.sampler.close()

    def step(self, *, max_tokens: int, threads: int) -> list[Progress]:
        """See `sprat.engine.base.GenerativeEngine.step`."""
        if threads != self._threads:
            self._lib.llama_set_n_threads(self._context, threads, threads)
            self._threads = threads
        plan = self._plan(max_tokens)
        if not plan:
            return []
        for sequence, count in plan:
            self._batch.add(
                sequence.ids[:count],
                slot=sequence.slot,
                position=sequence.position,
                output=count == len(sequence.ids),
            )
        outputs = self._batch.outputs()
        status = self._batch.decode(self._context)
        if status != 0:
            return self._fail(status, [sequence for sequence, _ in plan])
        progress = []
        for (sequence, count), output in zip(plan, outputs, strict=True):
            sequence.position += count
            if output is None:
                sequence.ids = sequence.ids[count:]
            else:
                progress.append(self._sample(sequence, output))
        return progress

    def _plan(self, max_tokens: int) -> list[tuple[_Sequence, int]]:
        """Who decodes how many tokens: answers one each, prompts equal shares of the rest."""
        answers = [s for s in self._live.values() if not s.is_prompt]
        prompts = [s for s in self._live.values() if s.is_prompt]
        plan = [(sequence, 1) for sequence in answers]
        # At least one token of a prompt, or a crowd of answers would keep it out.
        room = min(max(max_tokens - len(plan), 1), BATCH_TOKENS - len(plan))
        self._turn += 1
        first = self._turn % len(prompts) if prompts else 0
        prompts = prompts[first:] + prompts[:first]
        for index, sequence in enumerate(prompts):
            share = -(-room // (len(prompts) - index))
            count = min(share, len(sequence.ids))
            if count:
                plan.append((sequence, count))
                room -= count
        return plan

    def _sample(self, sequence: _Sequence, output: int) -> Progress:
        token = sequence.sampler.sample(output)
        if self._lib.llama_vocab_is_eog(self._vocab, token):
            return self._finish(sequence, "", "stop", tokens=1)
        text = sequence.stream.feed(self._piece(token, special=False))
        sequence.left -= 1
        sequence.is_prompt = False
        sequence.ids = np.array([token], np.int32)
        if sequence.stream.stopped:
            return self._finish(sequence, text, "stop", tokens=1)
        if sequence.left == 0:
            return self._finish(sequence, text, "length", tokens=1)
        return Progress(sequence.number, text, 1)

    def _finish(
        self, sequence: _Sequence, text: str, reason: FinishReason, *, tokens: int
    ) -> Progress:
        self.stop(sequence.number)
        return Progress(sequence.number, text + sequence.stream.flush(), tokens, reason)

    def _fail(self, status: int, planned: list[_Sequence]) -> list[Progress]:
        """Give up what a batch that could not be decoded leaves no hope for.

        Status 1 says that no cells were found: the newest sequence gives its own up. Anything else
        ends every sequence of the batch.
        """
        if status == 1:
            planned = [max(planned, key=lambda sequence: sequence.number)]
        for sequence in planned:
            self.stop(sequence.number)
        error = f"llama.cpp could not decode a batch (status {status})"
        return [Progress(sequence.number, "", 0, error=error) for sequence in planned]

    def close(self) -> None:
        """See `sprat.engine.base.GenerativeEngine.close`."""
        for number in list(getattr(self, "_live", ())):
            self.stop(number)
        if self._context:
            self._lib.llama_free(self._context)
            self._context = None
        if self._model:
            self._lib.llama_model_free(self._model)
            self._model = None


class _Batch:
    """A ``llama_batch`` over numpy arrays: filled by slices, without a loop over tokens.

    Parameters
    ----------
    lib : module
        As `sprat.engine.llama_lib.load` returns it.
    """

    def __init__(self, lib: Any) -> None:
        self._lib = lib
        self._ids = np.zeros(BATCH_TOKENS, np.int32)
        self._positions = np.zeros(BATCH_TOKENS, np.int32)
        self._slots = np.zeros(BATCH_TOKENS, np.int32)
        self._outputs = np.zeros(BATCH_TOKENS, np.int8)
        self._ones = np.ones(BATCH_TOKENS, np.int32)
        # One sequence a token: each pointer leads to that token's element of `_slots`.
        step = self._slots.itemsize
        self._pointers = self._slots.ctypes.data + step * np.arange(BATCH_TOKENS, dtype=np.uintp)
        self._size = 0
        self._last: list[int | None] = []

    def add(self, ids: IntArray, *, slot: int, position: int, output: bool) -> None:
        """Append tokens of one sequence; ``output`` asks for the logits of the last one."""
        start, end = self._size, self._size + len(ids)
        if end > BATCH_TOKENS:
            raise EngineError(f"a batch of {end} tokens, at most {BATCH_TOKENS} are possible")
        self._ids[start:end] = ids
        self._positions[start:end] = np.arange(position, position + len(ids))
        self._slots[start:end] = slot
        self._outputs[start:end] = 0
        self._outputs[end - 1] = output
        self._size = end
        self._last.append(end - 1 if output else None)

    def outputs(self) -> list[int | None]:
        """For each `add`, the index of its logits in the batch, or None."""
        return self._last

    def decode(self, context: Any) -> int:
        """Decode what was added, and begin anew; the status of ``llama_decode``."""
        lib = self._lib
        batch = lib.llama_batch(
            n_tokens=self._size,
            token=_pointer(self._ids, lib.llama_token),
            embd=None,
            pos=_pointer(self._positions, lib.llama_pos),
            n_seq_id=_pointer(self._ones, ctypes.c_int32),
            seq_id=ctypes.cast(
                self._pointers.ctypes.data, ctypes.POINTER(ctypes.POINTER(lib.llama_seq_id))
            ),
            logits=_pointer(self._outputs, ctypes.c_int8),
        )
        self._size = 0
        self._last = []
        return int(lib.llama_decode(context, batch))


def _pointer(array: np.ndarray[Any, Any], kind: Any) -> Any:
    return array.ctypes.data_as(ctypes.POINTER(kind))


def _load_model(lib: Any, path: Path) -> Any:
    if not path.is_file():
        raise CorruptFile(str(path), "missing")
    params = lib.llama_model_default_params()
    params.n_gpu_layers = 0
    llama_lib.last_errors.clear()
    model = lib.llama_model_load_from_file(str(path).encode(), params)
    if not model:
        raise CorruptFile(str(path), f"llama.cpp cannot load it: {_last_error()}")
    return model


def _last_error() -> str:
    return "; ".join(llama_lib.last_errors) or "no reason given"
