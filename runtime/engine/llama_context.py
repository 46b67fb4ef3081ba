"""How sprat makes a llama.cpp context, for answers and for choices alike."""

from __future__ import annotations

from typing import Any

from sprat.engine.llama_lib import collect_errors
from sprat.errors import EngineError

CELL_BLOCK = 256
"""llama.cpp rounds the cells of a sequence up to a multiple of this."""

FLASH_ATTENTION_OFF = 0
"""On the CPU it gains on short sequences what it loses on long ones: with 8 sequences of 100 tokens
135 against 111 tokens/s of one core, of 500 tokens 73 against 96."""


def make_context(
    lib: Any,
    model: Any,
    *,
    cells: int,
    sequences: int,
    outputs: int,
    batch_tokens: int,
    is_unified: bool,
    threads: int,
    on_tensor: Any = None,
) -> Any:
    """Make a context.

    Parameters
    ----------
    lib : module
        As `sprat.engine.llama_lib.load` returns it.
    model : pointer
        A loaded model, which outlives the context.
    cells : int
        Tokens that all sequences hold together, a multiple of `CELL_BLOCK` for each place.
    sequences : int
        Most sequences.
    outputs : int
        Most rows of logits of a batch, at least ``sequences``: llama.cpp wants no fewer.
    batch_tokens : int
        Most tokens of a batch.
    is_unified : bool
        Whether the sequences share their cells.
    threads : int
        Compute threads.
    on_tensor : callback, optional
        A ``ggml_backend_sched_eval_callback``, which the caller keeps. Called for every tensor.

    Raises
    ------
    EngineError
        llama.cpp cannot make it, mostly for want of memory.
    """
    params = lib.llama_context_default_params()
    params.n_ctx = cells
    params.n_batch = params.n_ubatch = batch_tokens
    params.n_seq_max = sequences
    params.n_outputs_max = outputs
    params.n_threads = params.n_threads_batch = threads
    params.flash_attn_type = FLASH_ATTENTION_OFF
    params.kv_unified = is_unified
    params.offload_kqv = params.op_offload = False
    if on_tensor is not None:
        params.cb_eval = on_tensor
    with collect_errors() as errors:
        context = lib.llama_init_from_model(model, params)
    if not context:
        raise EngineError(
            f"llama.cpp cannot make a context of {cells} tokens: "
            + (errors[0] if errors else "no reason given")
        )
    return context
