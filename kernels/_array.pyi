from typing import Literal

import numpy as np
import numpy.typing as npt

AVX2: bool

def pool(
    hidden_bth: npt.NDArray[np.float32],
    lengths_b: npt.NDArray[np.int32],
    mode: Literal["mean", "cls"],
    normalize: bool = True,
) -> npt.NDArray[np.float32]: ...
