from typing import Literal

import numpy as np
import numpy.typing as npt

AVX2: bool

def chunk(
    text: str, spans: npt.NDArray[np.int32], max_tokens: int, overlap_tokens: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]: ...
def pool(
    hidden_bth: npt.NDArray[np.float32],
    lengths_b: npt.NDArray[np.int32],
    mode: Literal["mean", "cls"],
    normalize: bool = True,
) -> npt.NDArray[np.float32]: ...
