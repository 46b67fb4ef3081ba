"""One llama.cpp context: equal places for sequences, each with cells of its own."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from sprat.engine.llama_adapter import Adapter, apply
from sprat.engine.llama_context import CELL_BLOCK, make_context
from sprat.engine.llama_draft import MOST_DRAFT
from sprat.errors import EngineError, UnsupportedModel
from sprat.values import FloatArray, IntArray

BATCH_TOKENS = 512
"""Most tokens of a batch. Prefill gains little beyond it, and buffers grow with it."""

MOST_THREADS = 512
"""GGML_MAX_N_THREADS."""

NO_CELLS = 1
"""Status of `Lane.decode`: no room for a token. Nothing was changed."""


class Occupant(Protocol):
    """Who has a place."""

    place: int


class _Nobody:
    place: int


@dataclass(frozen=True, slots=True)
class Row:
    """Tokens of one sequence for a batch.

    Attributes
    ----------
    position : int
        Of the first one in its sequence.
    outputs : int
        Of how many tokens, from the last one, the logits are wanted.
    """

    place: int
    ids: IntArray
    position: int
    outputs: int


class Lane:
    """A context in which every place is a stream of its own (``kv_unified`` off).

    A sequence attends to its own cells alone, so neighbours do not slow it down: with 7 sequences
    of 500 tokens, answers alone are 1.4 times and prompts beside answers 2.2 times as fast as with
    shared cells; of 120 tokens, as fast and 1.25 times. What it costs is that the cells of a place
    serve no other.

    Occupied places are always ``0 .. n - 1``, for llama.cpp decodes only neighbouring streams in
    one pass: when a place is left, who has the last one moves there.

    Parameters
    ----------
    lib : module
        As `sprat.engine.llama_lib.load` returns it.
    model : pointer
        A loaded model, which outlives this object.
    places : int
        Most sequences.
    spare : int
        Further places, to keep what `copy` puts there.
    capacity : int
        Most tokens of each.
    threads : int
        Compute threads until `decode` says otherwise.

    Attributes
    ----------
    can_roll_back : bool
        Whether this model forgets tokens at the end of a sequence; some keep a state instead. Known
        after `warm_up`.

    Raises
    ------
    UnsupportedModel
        The model is no plain decoder.
    EngineError
        llama.cpp cannot make the context, mostly for want of memory.
    """

    def __init__(
        self, lib: Any, model: Any, *, places: int, spare: int, capacity: int, threads: int
    ) -> None:
        self.places = places
        self.spare = range(places, places + spare)
        self.capacity = capacity
        self.can_roll_back = False
        self._adapter: Adapter | None = None
        self._lib = lib
        self._threads = threads
        self._vocabulary_size: int = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(model))
        self._occupants: list[Occupant] = []
        self.context = make_context(
            lib,
            model,
            cells=(places + spare) * (-(-capacity // CELL_BLOCK) * CELL_BLOCK),
            sequences=places + spare,
            outputs=places + spare + MOST_DRAFT,
            batch_tokens=BATCH_TOKENS,
            is_unified=False,
            threads=threads,
        )
        self._memory = lib.llama_get_memory(self.context)
        batch_tokens = lib.llama_n_batch(self.context)
        if not self._memory or lib.llama_n_ctx_seq(self.context) < capacity:
            self.close()
            raise UnsupportedModel("expected a model with a cache of past tokens, found none")
        self._ids = np.zeros(batch_tokens, np.int32)
        self._positions = np.zeros(batch_tokens, np.int32)
        self._places = np.zeros(batch_tokens, np.int32)
        self._outputs = np.zeros(batch_tokens, np.int8)
        self._ones = np.ones(batch_tokens, np.int32)
        # One sequence a token: each address is that of the token's element of `_places`.
        step = self._places.itemsize
        self._addresses = self._places.ctypes.data + step * np.arange(batch_tokens, dtype=np.uintp)
        self._batch = lib.llama_batch(
            token=_pointer(self._ids, lib.llama_token),
            pos=_pointer(self._positions, lib.llama_pos),
            n_seq_id=_pointer(self._ones, ctypes.c_int32),
            seq_id=_pointer(self._addresses, ctypes.POINTER(lib.llama_seq_id)),
            logits=_pointer(self._outputs, ctypes.c_int8),
        )

    @property
    def batch_tokens(self) -> int:
        """Most tokens of one `decode`."""
        return len(self._ids)

    def has_room(self, tokens: int) -> bool:
        """Whether a place is free and holds ``tokens``."""
        return len(self._occupants) < self.places and tokens <= self.capacity

    def enter(self, occupant: Occupant) -> None:
        """Give out the next place.

        Raises
        ------
        EngineError
            None is free.
        """
        if len(self._occupants) == self.places:
            raise EngineError(f"all {self.places} places are taken")
        occupant.place = len(self._occupants)
        self._occupants.append(occupant)

    def leave(self, occupant: Occupant) -> None:
        """Take a place back and free its cells."""
        last = self._occupants.pop()
        freed = last.place
        if last is not occupant:
            self.copy(freed, occupant.place)
            last.place = occupant.place
            self._occupants[last.place] = last
        self._lib.llama_memory_seq_rm(self._memory, freed, -1, -1)

    def use(self, adapter: Adapter | None) -> None:
        """Decode under an adapter, or none, from now on; nobody may be in the middle of it."""
        if adapter is not self._adapter:
            apply(self._lib, self.context, adapter)
            self._adapter = adapter

    def copy(self, source: int, target: int) -> None:
        """Make a place hold what another one holds, and nothing else.

        Raises
        ------
        EngineError
            A place is not there: it would abort the process.
        """
        known = range(self.places + len(self.spare))
        if source not in known or target not in known:
            raise EngineError(f"expected places below {len(known)}, got {source} and {target}")
        self._lib.llama_memory_seq_rm(self._memory, target, -1, -1)
        self._lib.llama_memory_seq_cp(self._memory, source, target, -1, -1)

    def roll_back(self, place: int, position: int) -> None:
        """Forget the tokens of a place from a position on. Only if `can_roll_back`."""
        self._lib.llama_memory_seq_rm(self._memory, place, position, -1)

    def decode(self, rows: Sequence[Row], *, threads: int) -> int:
        """Decode one batch.

        Parameters
        ----------
        rows : sequence of Row
            In order of place, at most one for each, at most `batch_tokens` tokens and at most
            ``places + MOST_DRAFT`` outputs.

        Returns
        -------
        int
            Status: 0; `NO_CELLS`; or another one, and the sequences in ``rows`` are of no use any
            more.

        Raises
        ------
        EngineError
            The rows would abort the process. Nothing was changed.
        """
        sizes = [len(row.ids) for row in rows]
        places = [row.place for row in rows]
        if not rows or min(sizes) < 1 or sum(sizes) > self.batch_tokens:
            raise EngineError(f"expected 1 to {self.batch_tokens} tokens, got rows of {sizes}")
        if not 1 <= threads <= MOST_THREADS:
            raise EngineError(f"threads: expected 1 to {MOST_THREADS}, got {threads}")
        if places != sorted({*places} & {*range(len(self._occupants))}):
            raise EngineError(
                f"expected places in order, each below {len(self._occupants)}, got {places}"
            )
        end = 0
        outputs = [row.outputs for row in rows]
        if sum(outputs) > self.places + MOST_DRAFT or any(
            not 0 <= count <= size for count, size in zip(outputs, sizes, strict=True)
        ):
            raise EngineError(
                f"expected at most {self.places + MOST_DRAFT} outputs of rows of {sizes} tokens, "
                f"got {outputs}"
            )
        for row, size in zip(rows, sizes, strict=True):
            span = slice(end, end := end + size)
            self._ids[span] = row.ids
            self._positions[span] = np.arange(row.position, row.position + size)
            self._places[span] = row.place
            self._outputs[span] = 0
            self._outputs[end - row.outputs : end] = 1
        self._batch.n_tokens = end
        if threads != self._threads:
            self._lib.llama_set_n_threads(self.context, threads, threads)
            self._threads = threads
        return int(self._lib.llama_decode(self.context, self._batch))

    def logits(self, count: int) -> FloatArray:
        """Logits of the ``count`` outputs of the last `decode`, in their order.

        Returns
        -------
        float32[count, V]
            llama.cpp's own memory: it may be written to, and is valid until the next `decode`.
        """
        first = self._lib.llama_get_logits(self.context)
        return np.ctypeslib.as_array(first, (count, self._vocabulary_size))

    def warm_up(self, token: int) -> None:
        """Decode one token twice and forget it: that reserves buffers and reads the weights.

        Raises
        ------
        EngineError
            It cannot be decoded.
        """
        occupant = _Nobody()
        self.enter(occupant)
        row = Row(occupant.place, np.array([token, token], np.int32), position=0, outputs=1)
        status = self.decode([row], threads=self._threads)
        self.can_roll_back = bool(
            self._lib.llama_memory_seq_rm(self._memory, occupant.place, 1, -1)
        )
        self.leave(occupant)
        if status:
            raise EngineError(f"llama.cpp cannot decode with this model (status {status})")

    def close(self) -> None:
        """Free the context."""
        self._lib.llama_free(self.context)


def _pointer(array: np.ndarray[Any, Any], kind: Any) -> Any:
    return array.ctypes.data_as(ctypes.POINTER(kind))
