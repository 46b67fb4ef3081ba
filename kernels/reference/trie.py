"""Probabilities of label strings from the logits at the nodes of their trie."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from sprat.kernels.reference.checks import check_array, check_choice


def score_trie(
    logits_rv: npt.NDArray[np.float32],
    parents_n: npt.NDArray[np.int32],
    tokens_n: npt.NDArray[np.int32],
    rows_n: npt.NDArray[np.int32],
    mode: Literal["constrained", "full"],
) -> npt.NDArray[np.float32]:
    """Compute the log-probability of reaching each node of a trie of token strings.

    Node 0 is the root, the prompt. Every other node n stands for the tokens on the way to it: those
    of its parent q, then ``tokens[n]``. With l the logits of row ``rows[q]``, what the model says
    after q::

        constrained:  s[n] = s[q] + l[tokens[n]] - log(sum over children c of q: exp(l[tokens[c]]))
        full:         s[n] = s[q] + l[tokens[n]] - log(sum over all tokens v: exp(l[v]))

    and s[0] = 0. `constrained` is what decoding under a grammar of the labels assigns: a node with
    one child costs nothing and needs no row. `full` is what the model assigns to the string among
    all strings; to compare labels, normalize over them.

    A label is the node where it ends. Where one label is the beginning of another, its node has
    children, and ``s`` there is the probability of both: give every such label (under `full`
    every label) an end token as its last node. A branch that is not to be looked into is a node
    without children; ``s`` there is the bound for all that would be below it.

    Parameters
    ----------
    logits_rv : float32[R, V]
        Logits of the next token after some nodes.
    parents_n : int32[N]
        Parent of each node, before it in the list; -1 for the root. N from 1.
    tokens_n : int32[N]
        The token that leads from the parent to each node, in [0, V), different from those of its
        siblings; -1 for the root.
    rows_n : int32[N]
        The row of logits after each node; -1 where there is none, which only nodes without children
        may have, and under `constrained` those with one.
    mode : {"constrained", "full"}
        As above.

    Returns
    -------
    float32[N]
        Natural logarithms, at most 0 but for rounding; ``-inf`` below a token whose logit is that.
        Sums run in float64. The native kernel takes the exponentials of `full` in float32 and is
        within 1e-5, absolute and relative, of these.

    Raises
    ------
    TypeError
        An argument of another type or dtype.
    ValueError
        An array of another shape or layout, no trie, or a row that is missing. Also when among the
        logits that are summed in a row (those of the children, or all) one is NaN or ``inf``, or
        none is finite.

    Examples
    --------
    Two labels, "a" (tokens 0, 2) and "ab" (tokens 0, 1), after a prompt that asks for neither:

    >>> import numpy as np
    >>> logits = np.log(np.array([[2, 1, 1], [1, 1, 3]], dtype=np.float32))
    >>> parents, tokens = np.array([-1, 0, 1, 1], np.int32), np.array([-1, 0, 2, 1], np.int32)
    >>> rows = np.array([0, 1, -1, -1], dtype=np.int32)
    >>> np.exp(score_trie(logits, parents, tokens, rows, "constrained")).round(3)
    array([1.  , 1.  , 0.75, 0.25], dtype=float32)
    >>> np.exp(score_trie(logits, parents, tokens, rows, "full")).round(3)
    array([1. , 0.5, 0.3, 0.1], dtype=float32)
    """
    check_array("logits_rv", logits_rv, np.float32, 2)
    check_array("parents_n", parents_n, np.int32, 1)
    check_array("tokens_n", tokens_n, np.int32, 1)
    check_array("rows_n", rows_n, np.int32, 1)
    check_choice("mode", mode, ("constrained", "full"))
    if len(parents_n) == 0:
        raise ValueError("parents_n: expected at least 1 node, got 0")
    for name, array in (("tokens_n", tokens_n), ("rows_n", rows_n)):
        if len(array) != len(parents_n):
            raise ValueError(
                f"{name}: expected {len(parents_n)} values, one for each of parents_n,"
                f" got {len(array)}"
            )
    children = _children(parents_n.tolist(), tokens_n.tolist(), logits_rv.shape[1])
    least = 2 if mode == "constrained" else 1
    for node, row in enumerate(rows_n.tolist()):
        low = 0 if len(children[node]) >= least else -1
        if not low <= row < logits_rv.shape[0]:
            raise ValueError(
                f"rows_n[{node}]: expected a row in [{low}, {logits_rv.shape[0]}), got {row}"
            )

    scores_n = np.zeros(len(parents_n))
    for node, below in enumerate(children):
        if len(below) < least:
            scores_n[below] = scores_n[node]
            continue
        logits_v = logits_rv[rows_n[node]].astype(np.float64)
        found = logits_v[tokens_n[below]]
        summed = found if mode == "constrained" else logits_v
        _check_row(int(rows_n[node]), summed)
        greatest = summed.max()
        total = greatest + np.log(np.exp(summed - greatest).sum())
        scores_n[below] = scores_n[node] + (found - total)
    return scores_n.astype(np.float32)


def _children(parents: list[int], tokens: list[int], vocabulary: int) -> list[list[int]]:
    """List the children of each node, or raise ValueError where this is no trie."""
    children: list[list[int]] = [[] for _ in parents]
    seen = set()
    for node, (parent, token) in enumerate(zip(parents, tokens, strict=True)):
        if node == 0:
            for name, value in (("parents_n", parent), ("tokens_n", token)):
                if value != -1:
                    raise ValueError(f"{name}[0]: expected -1 for the root, got {value}")
            continue
        if not 0 <= parent < node:
            raise ValueError(f"parents_n[{node}]: expected a node in [0, {node}), got {parent}")
        if not 0 <= token < vocabulary:
            raise ValueError(
                f"tokens_n[{node}]: expected a value in [0, {vocabulary}), got {token}"
            )
        if (parent, token) in seen:
            raise ValueError(
                f"tokens_n[{node}]: expected another token than that of a sibling, got {token}"
            )
        seen.add((parent, token))
        children[parent].append(node)
    return children


def _check_row(row: int, logits: npt.NDArray[np.float64]) -> None:
    if np.isnan(logits).any():
        raise ValueError(f"logits_rv[{row}]: expected numbers below infinity, got nan")
    if (logits == np.inf).any():
        raise ValueError(f"logits_rv[{row}]: expected numbers below infinity, got inf")
    if not np.isfinite(logits).any():
        raise ValueError(f"logits_rv[{row}]: expected an allowed token of finite logit, got none")
