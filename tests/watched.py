"""llama.cpp behind a watch: a call that would abort the process fails the test instead."""

from __future__ import annotations

from typing import Any

from sprat.engine import llama_lib


class Watched:
    """llama.cpp's functions; those that can abort are checked against their context's limits.

    Attributes
    ----------
    most_tokens, most_outputs : int
        Of a batch so far.
    copies : int
        Of sequences.
    """

    def __init__(self) -> None:
        self._lib = llama_lib.load()
        self._params: dict[Any, Any] = {}
        self.most_tokens = self.most_outputs = self.copies = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._lib, name)

    def llama_init_from_model(self, model: Any, params: Any) -> Any:
        context = self._lib.llama_init_from_model(model, params)
        self._params[context] = self._params[self._lib.llama_get_memory(context)] = params
        return context

    def llama_decode(self, context: Any, batch: Any) -> int:
        params, count = self._params[context], batch.n_tokens
        outputs = sum(bool(batch.logits[at]) for at in range(count))
        assert 1 <= count <= params.n_batch
        assert outputs <= params.n_outputs_max
        for at in range(count):
            assert batch.pos[at] >= 0
            assert batch.n_seq_id[at] >= 1
            assert params.kv_unified or batch.n_seq_id[at] == 1
            for each in range(batch.n_seq_id[at]):
                assert 0 <= batch.seq_id[at][each] < params.n_seq_max
        self.most_tokens = max(self.most_tokens, count)
        self.most_outputs = max(self.most_outputs, outputs)
        return int(self._lib.llama_decode(context, batch))

    def llama_memory_seq_cp(self, memory: Any, source: int, target: int, *span: int) -> None:
        params = self._params[memory]
        assert 0 <= source < params.n_seq_max
        assert 0 <= target < params.n_seq_max
        assert span == (-1, -1), "a part of a sequence"
        self.copies += 1
        self._lib.llama_memory_seq_cp(memory, source, target, *span)

    def llama_memory_seq_rm(self, memory: Any, sequence: int, *span: int) -> bool:
        assert 0 <= sequence < self._params[memory].n_seq_max
        return bool(self._lib.llama_memory_seq_rm(memory, sequence, *span))

    def llama_memory_seq_add(self, *_: Any) -> None:
        raise AssertionError("K-shift: not every cache has it")

    llama_memory_seq_div = llama_memory_seq_add
