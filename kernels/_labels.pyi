import numpy as np
import numpy.typing as npt

def viterbi(
    emissions_btk: npt.NDArray[np.float32],
    lengths_b: npt.NDArray[np.int32],
    transitions_kk: npt.NDArray[np.float32],
    start_k: npt.NDArray[np.float32],
    end_k: npt.NDArray[np.float32],
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]: ...
