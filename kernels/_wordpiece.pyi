import os
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sprat.kernels.reference import Embedded as Embedded
from sprat.kernels.reference import Ragged as Ragged
from sprat.kernels.reference import WordPieceSettings as WordPieceSettings
from sprat.kernels.reference.embedding import Table

class WordPiece:
    def __init__(self, settings: WordPieceSettings) -> None: ...
    @classmethod
    def from_tokenizer_json(cls, path: str | os.PathLike[str]) -> WordPiece: ...
    @classmethod
    def from_vocab(
        cls,
        path: str | os.PathLike[str],
        *,
        lowercase: bool = True,
        strip_accents: bool | None = None,
        clean_text: bool = True,
        handle_chinese_chars: bool = True,
    ) -> WordPiece: ...
    def encode_batch(
        self,
        texts: Sequence[str],
        max_tokens: int | None = None,
        threads: int | None = None,
        *,
        count_dropped: bool = False,
        parse_special: bool = False,
    ) -> Ragged: ...
    def tokens(self, ids: npt.NDArray[np.int32]) -> tuple[str, ...]: ...

class StaticEmbedding:
    def __init__(
        self,
        settings: WordPieceSettings,
        table_vh: Table,
        weights_v: npt.NDArray[np.float32] | None = None,
        normalize: bool = True,
        rows_v: npt.NDArray[np.int32] | None = None,
    ) -> None: ...
    def encode_batch(
        self, texts: Sequence[str], max_tokens: int | None = None, *, count_dropped: bool = False
    ) -> Embedded: ...
