"""What generative models say of labelled rows, asked as a server would ask."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

import numpy as np

from sprat.calibration import log_scores, spread
from sprat.config import Config, ModelConfig
from sprat.errors import DataError
from sprat.inprocess import Runtime
from sprat.progress import Progress
from sprat.store import Store
from sprat.train.data import Dataset
from sprat.values import ClassifyResult, FloatArray, LabelSet

ASKED_AT_ONCE = 32
"""Rows of a call: more than any model works on side by side."""

Ask = Callable[[Sequence[str]], ClassifyResult]
"""One call, in which bad texts are listed."""

OpenAsk = Callable[[LabelSet], AbstractContextManager[Ask]]
"""Loads the model of a spec, and its adapter, for as long as it is asked."""


def log_probabilities(
    ask: Ask, labels: Sequence[str], rows: Dataset, progress: Progress
) -> FloatArray:
    """Log-probabilities of labels.

    Parameters
    ----------
    ask : callable
        Answers with the scores of all labels, or of the one that it names: see `spread`. An answer
        without any counts as a wrong label, no surer than chance.

    Returns
    -------
    float32[N, K]

    Raises
    ------
    DataError
        For the first row that cannot be answered, such as one that is too long.
    """
    shares_nk = np.empty((len(rows), len(labels)), np.float32)
    for start in range(0, len(rows), ASKED_AT_ONCE):
        texts = rows.texts[start : start + ASKED_AT_ONCE]
        result = ask(texts)
        for error in result.errors:
            message = error.message.replace(f"texts[{error.index}]", "text", 1)
            raise DataError(rows.path, rows.lines[start + error.index], message)
        for at, item in enumerate(result.items):
            assert item is not None, "a text without an error has an answer"
            scores = {score.label: score.score for score in item.scores}
            if not scores:
                # No label is a wrong one, and no surer than chance.
                wrong = labels[labels[0] == rows.labels[start + at]]
                scores = {wrong: 0.0}
            if len(scores) == 1:
                ((label, sure),) = scores.items()
                shares_nk[start + at] = spread(labels.index(label), sure, len(labels))
            else:
                shares_nk[start + at] = [scores[label] for label in labels]
        progress.advance(len(texts))
    return log_scores(shares_nk)


def ask_opener(store: Store) -> OpenAsk:
    """What loads models and adapters of a store."""

    @contextmanager
    def open_ask(spec: LabelSet) -> Iterator[Ask]:
        model = ModelConfig(adapters=(spec.adapter,) if spec.adapter else ())
        with Runtime(config=Config(models={spec.model: model}), store=store) as runtime:
            yield lambda texts: runtime.choose(spec, texts, partial=True)

    return open_ask
