from typing import Literal

import numpy as np
import numpy.typing as npt

def score_trie(
    logits_rv: npt.NDArray[np.float32],
    parents_n: npt.NDArray[np.int32],
    tokens_n: npt.NDArray[np.int32],
    rows_n: npt.NDArray[np.int32],
    mode: Literal["constrained", "full"],
) -> npt.NDArray[np.float32]: ...
def viterbi(
    emissions_btk: npt.NDArray[np.float32],
    lengths_b: npt.NDArray[np.int32],
    transitions_kk: npt.NDArray[np.float32],
    start_k: npt.NDArray[np.float32],
    end_k: npt.NDArray[np.float32],
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]: ...
