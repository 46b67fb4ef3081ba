"""Training examples for generative models: the very prompts of the server, and answers to them.

What counts is what the server asks of the model: of a label, the tokens that tell it from the
others; of an answer under a grammar, the tokens that the grammar does not force.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sprat.engine.label_trie import LabelTrie
from sprat.engine.llama import LlamaEngine
from sprat.engine.llama_grammar import LlamaGrammar
from sprat.errors import DataError, InputTooLong, InvalidInput
from sprat.model.choices import Branch, tokenize_branch
from sprat.model.instructed import Instructed, common_length
from sprat.tasks import choose, extract
from sprat.text.schema import Schema
from sprat.text.template import TEXT, Template
from sprat.train.rows import bad_rows
from sprat.values import (
    ExtractSpec,
    Grammar,
    IntArray,
    LabelSet,
    Message,
    TransformSpec,
)


@dataclass(frozen=True, slots=True)
class Step:
    """A token of an answer that the model chooses.

    Attributes
    ----------
    at : int
        Its place in the answer, from 0.
    among : tuple of int
        The tokens that it is chosen from; empty for the whole vocabulary.
    """

    at: int
    among: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Example:
    """A prompt and the answer to it.

    Attributes
    ----------
    prompt : int32[T]
        As the server makes it.
    answer : int32[A]
        Up to the last token that the model chooses.
    steps : tuple of Step
        Which tokens of the answer count, one at least.
    """

    prompt: IntArray
    answer: IntArray
    steps: tuple[Step, ...]

    def __len__(self) -> int:
        """Tokens that the model reads: the last one of the answer is only foretold."""
        return len(self.prompt) + len(self.answer) - 1


class Examples:
    """Makes examples with the tokenizer, chat template and grammars of an engine.

    Parameters
    ----------
    engine : LlamaEngine
        The model that is trained.
    most_tokens : int
        Longest example.
    """

    def __init__(self, engine: LlamaEngine, *, most_tokens: int) -> None:
        self._engine = engine
        self._instructed = Instructed(engine)
        self._most = min(most_tokens, engine.context_length)

    def classify(
        self,
        spec: LabelSet,
        texts: Sequence[str],
        targets: Sequence[int],
        *,
        lines: Sequence[int],
        path: str,
    ) -> list[Example]:
        """Texts and their labels, as `sprat.tasks.choose` asks for them and scores them.

        With ``constrained`` scoring a label's tokens are chosen among those of the other labels,
        with ``full`` scoring among all: see `sprat.engine.label_trie.LabelTrie`.

        Parameters
        ----------
        targets : sequence of int
            The label of each text, as its index in the spec.

        Raises
        ------
        DataError
            Texts are too long: their lines.
        InvalidInput, InputTooLong
            The labels or instructions cannot be used.
        """
        names = tuple(label.name for label in spec.labels)
        row = tokenize_branch(self._engine, Branch(names, "labels"))
        trie = LabelTrie(row.options, end=self._engine.turn_end(), scoring=spec.scoring)
        answers = [_label(trie, leaf) for leaf in trie.leaves]
        instructions = choose.prompt(spec)

        def make(index: int) -> Example:
            answer, steps = answers[targets[index]]
            return Example(self._instructed.tokens(instructions, texts[index]), answer, steps)

        return self._make_all(make, lines, path)

    def extract(
        self,
        spec: ExtractSpec,
        texts: Sequence[str],
        values: Sequence[str],
        *,
        lines: Sequence[int],
        path: str,
    ) -> list[Example]:
        """Texts and the JSON that is to be extracted, as `sprat.tasks.extract` asks for it.

        Parameters
        ----------
        values : sequence of str
            JSON as the grammar writes it: keys in the order of the schema, no white space.

        Raises
        ------
        DataError
            Values do not fit the schema, or texts are too long: their lines.
        InvalidInput
            The schema or instructions cannot be used.
        """
        schema = Schema(spec.schema)
        grammar = self._engine.compile(Grammar("json_schema", schema.grammar))
        instructions = extract.prompt(spec, schema)

        def make(index: int) -> Example:
            prompt = self._instructed.tokens(instructions, texts[index])
            return self._spelled(prompt, values[index], grammar)

        return self._make_all(make, lines, path)

    def transform(
        self,
        spec: TransformSpec,
        texts: Sequence[str],
        inputs: Sequence[Mapping[str, str]],
        answers: Sequence[str],
        *,
        lines: Sequence[int],
        path: str,
    ) -> list[Example]:
        """Texts and what they become, as `sprat.tasks.transform` asks for it.

        Parameters
        ----------
        inputs : sequence of mapping of str to str
            Values of the prompt's other placeholders.

        Raises
        ------
        DataError
            Answers do not fit the grammar, or texts are too long: their lines.
        InvalidInput
            The prompt or the grammar cannot be used.
        """
        template = Template(spec.prompt)
        grammar = None if spec.grammar is None else self._engine.compile(spec.grammar)

        def make(index: int) -> Example:
            filled = template.fill({**inputs[index], TEXT: texts[index]})
            prompt = self._engine.chat_tokens([Message("user", filled)])
            return self._spelled(prompt, answers[index], grammar)

        return self._make_all(make, lines, path)

    def _spelled(self, prompt: IntArray, answer: str, grammar: LlamaGrammar | None) -> Example:
        plain = self._engine.tokenize(answer, add_special=False, parse_special=False)
        tokens = len(prompt) + len(plain)
        # A grammar may cut the text otherwise, but not into half as many tokens. Walking through it
        # takes long: not for what is far too long anyway.
        if tokens > 2 * self._most:
            raise InputTooLong(field="text", tokens=tokens, limit=self._most)
        spelling = self._engine.spell(answer, grammar)
        chosen = np.flatnonzero(spelling.is_chosen).tolist()
        return Example(prompt, spelling.ids[: chosen[-1] + 1], tuple(map(Step, chosen)))

    def _make_all(
        self, make: Callable[[int], Example], lines: Sequence[int], path: str
    ) -> list[Example]:
        made: list[Example] = []
        faults: list[tuple[int, str]] = []
        for index, line in enumerate(lines):
            try:
                example = make(index)
                if len(example) > self._most:
                    raise InputTooLong(field="text", tokens=len(example), limit=self._most)
            except (InvalidInput, InputTooLong) as error:
                faults.append((line, error.message))
            else:
                made.append(example)
        if faults:
            raise bad_rows(path, faults)
        if not made:
            raise DataError(path, 0, "no rows")
        return made


def shared_length(examples: Iterable[Example]) -> int:
    """First tokens that all prompts have in common; less than any prompt has."""
    shared: IntArray | None = None
    for example in examples:
        if shared is None:
            shared = example.prompt[:-1]
        shared = shared[: common_length(shared, example.prompt[:-1])]
    return 0 if shared is None else len(shared)


def _label(trie: LabelTrie, leaf: int) -> tuple[IntArray, tuple[Step, ...]]:
    """The answer that a leaf of the trie is, and its steps."""
    answer: list[int] = []
    steps: list[Step] = []
    for at, node in enumerate(trie.path(leaf)):
        answer.append(trie.nodes[node].token)
        siblings = tuple(sorted(trie.nodes[trie.nodes[node].parent].children))
        if trie.scoring == "full":
            steps.append(Step(at))
        elif len(siblings) > 1:
            steps.append(Step(at, siblings))
    return np.array(answer[: steps[-1].at + 1], np.int32), tuple(steps)
