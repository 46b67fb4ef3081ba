from typing import Literal

import numpy as np
import numpy.typing as npt

from sprat.kernels.reference.embedding import Table

AVX2: bool

def chunk(
    text: str, spans: npt.NDArray[np.int32], max_tokens: int, overlap_tokens: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]: ...
def classify_head(
    vectors_bh: npt.NDArray[np.float32],
    weight_kh: npt.NDArray[np.float32],
    bias_k: npt.NDArray[np.float32],
    temperature: float,
    top_k: int,
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]: ...
def embedding_bag(
    ids_n: npt.NDArray[np.int32],
    offsets: npt.NDArray[np.int64],
    table_vh: Table,
    weights_v: npt.NDArray[np.float32] | None = None,
    normalize: bool = True,
    rows_v: npt.NDArray[np.int32] | None = None,
) -> npt.NDArray[np.float32]: ...
def length_order(
    lengths_b: npt.NDArray[np.int32],
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]: ...
def pack(
    ids_n: npt.NDArray[np.int32],
    offsets: npt.NDArray[np.int64],
    vocabulary_size: int,
    order_m: npt.NDArray[np.int32] | None = None,
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.bool_], npt.NDArray[np.int32]]: ...
def pool(
    hidden_bth: npt.NDArray[np.float32],
    lengths_b: npt.NDArray[np.int32],
    mode: Literal["mean", "cls", "last"],
    normalize: bool = True,
) -> npt.NDArray[np.float32]: ...
