"""A static model as a whole: from texts to sentence vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sprat.kernels.reference.checks import check_bool
from sprat.kernels.reference.embedding import Table, check_table, embedding_bag
from sprat.kernels.reference.wordpiece import WordPiece
from sprat.kernels.reference.wordpiece_settings import WordPieceSettings


class Embedded(NamedTuple):
    """Vectors of texts and the tokens that they were made of.

    Attributes
    ----------
    vectors : float32[B, H]
        One of each text; zeros for a text without a known token.
    tokens : int64[B]
        Tokens that the vector is the mean of.
    dropped : int64[B]
        Tokens that were cut from the row: 0 of a whole row, -1 where they were not counted.
    """

    vectors: npt.NDArray[np.float32]
    tokens: npt.NDArray[np.int64]
    dropped: npt.NDArray[np.int64]


class StaticEmbedding:
    """`WordPiece`, then `embedding_bag` over all tokens but the unknown one.

    Any number of threads may use one instance at once.

    Parameters
    ----------
    settings : WordPieceSettings
        The tokenizer; each of its ids must be a token of the table.
    table_vh, weights_v, normalize, rows_v
        As in `embedding_bag`. The table is not copied, and must not be written to.

    Raises
    ------
    TypeError, ValueError
        As `embedding_bag` does; or an id of the settings is no token of the table.

    References
    ----------
    Tulkens and van Dongen, "Model2Vec", 2024, whose library drops unknown tokens as well.

    Examples
    --------
    >>> import numpy as np
    >>> words = ["[UNK]", "un", "##able"]
    >>> settings = WordPieceSettings({word: i for i, word in enumerate(words)}, unknown=0)
    >>> table = np.array([[9, 9], [0, 2], [4, 0]], dtype=np.int8)
    >>> static = StaticEmbedding(settings, table, normalize=False)
    >>> vectors, tokens, dropped = static.encode_batch(["Unable", "fish unable!"])
    >>> vectors.tolist(), tokens.tolist()
    ([[2.0, 1.0], [2.0, 1.0]], [2, 2])
    """

    __slots__ = ("_bag", "_unknown", "_wordpiece")

    def __init__(
        self,
        settings: WordPieceSettings,
        table_vh: Table,
        weights_v: npt.NDArray[np.float32] | None = None,
        normalize: bool = True,
        rows_v: npt.NDArray[np.int32] | None = None,
    ) -> None:
        check_static(settings, table_vh, weights_v, normalize, rows_v)
        self._wordpiece = WordPiece(settings)
        self._unknown = settings.unknown
        self._bag = (table_vh, weights_v, normalize, rows_v)

    def encode_batch(
        self, texts: Sequence[str], max_tokens: int | None = None, *, count_dropped: bool = False
    ) -> Embedded:
        """Embed texts.

        Parameters
        ----------
        texts, max_tokens, count_dropped
            As in `WordPiece.encode_batch`. Unknown tokens count for ``max_tokens``.

        Returns
        -------
        Embedded
            New arrays.

        Raises
        ------
        TypeError, ValueError
            As `WordPiece.encode_batch` does.

        Notes
        -----
        The native twin gives the GIL up where the texts are longer than 2,048 code points together.
        """
        rows = self._wordpiece.encode_batch(texts, max_tokens, count_dropped=count_dropped)
        is_known_n = rows.ids != self._unknown
        offsets = np.concatenate([[0], np.cumsum(is_known_n)])[rows.offsets]
        vectors = embedding_bag(rows.ids[is_known_n], offsets, *self._bag)
        return Embedded(vectors, np.diff(offsets), rows.dropped)


def check_static(settings: Any, table_vh: Any, weights_v: Any, normalize: Any, rows_v: Any) -> None:
    """Refuse what `StaticEmbedding` cannot be made of.

    Raises
    ------
    TypeError, ValueError
        See there.
    """
    if not isinstance(settings, WordPieceSettings):
        raise TypeError(f"settings: expected WordPieceSettings, got {type(settings).__name__}")
    vocabulary = check_table(table_vh, weights_v, rows_v)
    check_bool("normalize", normalize)
    ids = (*settings.vocabulary.values(), settings.unknown, *settings.before, *settings.after)
    if max(ids) >= vocabulary:
        raise ValueError(
            f"settings: expected ids in [0, {vocabulary}), as many as the table has tokens,"
            f" got {max(ids)}"
        )
