"""Options as a trie of tokens: which logits their probabilities need, and how those combine."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from sprat.errors import InvalidInput
from sprat.values import FloatArray, IntArray, Scoring

ROOT = 0


@dataclass(slots=True)
class Node:
    """A place in the trie: what was read so far.

    Attributes
    ----------
    token : int
        The last token that was read; -1 for the root.
    depth : int
        Tokens that were read.
    children : dict of int to int
        Node by the token that leads there.
    """

    parent: int
    token: int
    depth: int
    children: dict[int, int] = field(default_factory=dict)


class LabelTrie:
    """The options of a choice.

    With ``constrained`` scoring the probability of an option is a product over the nodes on its way
    that have more than one child: the softmax of the model's logits over those children alone. It
    is what sampling would give under a grammar that allows the options and nothing else. An option
    that another one begins with ends in ``end``.

    With ``full`` scoring it is the product of the model's own probabilities, over the whole
    vocabulary, of each token of the option and of ``end`` after it; then divided by the sum over
    the options.

    Parameters
    ----------
    options : sequence of int32[T_i]
        Tokens of each option, T_i from 1.
    end : int
        The token that ends an answer.
    scoring : {"constrained", "full"}
        See above.

    Attributes
    ----------
    nodes : list of Node
        The root first, each after its parent.
    leaves : list of int
        The node of each option.
    needed : set of int
        Nodes after which the logits are needed, the root always among them.

    Raises
    ------
    InvalidInput
        Two options have the same tokens, or one has none.
    """

    def __init__(self, options: Sequence[IntArray], *, end: int, scoring: Scoring) -> None:
        self.scoring = scoring
        self.nodes = [Node(-1, -1, 0)]
        ends = [self._insert(option.tolist()) for option in options]
        owners: dict[int, int] = {}
        for index, node in enumerate(ends):
            name = f"labels[{index}]"
            if node == ROOT:
                raise InvalidInput(f"{name}: has no tokens", field=name)
            if owners.setdefault(node, index) != index:
                raise InvalidInput(
                    f"{name}: the model reads it as it does labels[{owners[node]}]", field=name
                )
        self.leaves = [
            self._child(node, end) if scoring == "full" or self.nodes[node].children else node
            for node in ends
        ]
        least = 1 if scoring == "full" else 2
        self.needed = {i for i, node in enumerate(self.nodes) if len(node.children) >= least}
        self.needed.add(ROOT)

    def _insert(self, tokens: Iterable[int]) -> int:
        node = ROOT
        for token in tokens:
            node = self._child(node, token)
        return node

    def _child(self, node: int, token: int) -> int:
        children = self.nodes[node].children
        if token not in children:
            children[token] = len(self.nodes)
            self.nodes.append(Node(node, token, self.nodes[node].depth + 1))
        return children[token]

    def path(self, node: int) -> list[int]:
        """The nodes from below the root down to ``node``."""
        found = []
        while node != ROOT:
            found.append(node)
            node = self.nodes[node].parent
        return found[::-1]

    def deepest(self, needed: Iterable[int]) -> list[int]:
        """Those of ``needed`` but the root with none of them below: where a sequence each ends."""
        above = {self.nodes[up].parent for node in needed for up in self.path(node)}
        return sorted(set(needed) - above - {ROOT})


@dataclass(frozen=True, slots=True)
class Scores:
    """What a trie's options are worth.

    Attributes
    ----------
    probabilities : float32[K]
        Of each option; they add up to 1.
    pruned : float
        Probability, in [0, 1], that lies on options below nodes whose logits were not asked for:
        spread evenly over them.
    """

    probabilities: FloatArray
    pruned: float


def combine(
    trie: LabelTrie, log_shares: dict[int, dict[int, float]], *, normalize_length: bool
) -> Scores:
    """Probabilities of the options from those of single steps.

    Parameters
    ----------
    log_shares : dict of int to dict of int to float
        For each needed node that was evaluated, the log-probability of each of its children.
    normalize_length : bool
        With ``full`` scoring: compare means over the tokens of an option and its end, instead of
        sums.
    """
    nodes = trie.nodes
    reached = np.zeros(len(nodes))
    pruned = np.zeros(len(nodes), bool)
    below = _leaves_below(trie)
    for index in range(1, len(nodes)):
        parent = nodes[index].parent
        shares = log_shares.get(parent)
        if shares is not None:
            step = shares[index]
        elif len(nodes[parent].children) > 1:
            pruned[index] = True
            step = np.log(below[index] / below[parent])
        else:
            step = 0.0
        pruned[index] |= pruned[parent]
        reached[index] = reached[parent] + step
    logs = reached[trie.leaves]
    if trie.scoring == "full":
        if normalize_length:
            logs = logs / [nodes[leaf].depth for leaf in trie.leaves]
        logs = logs - logs.max()
    powers = np.exp(logs)
    probabilities = powers / powers.sum()
    return Scores(probabilities.astype(np.float32), float(probabilities[pruned[trie.leaves]].sum()))


def _leaves_below(trie: LabelTrie) -> list[int]:
    counts = [0] * len(trie.nodes)
    for leaf in trie.leaves:
        counts[leaf] = 1
    for index in range(len(trie.nodes) - 1, 0, -1):
        counts[trie.nodes[index].parent] += counts[index]
    return counts
