import numpy as np
import numpy.typing as npt

def mask_logits(
    logits_bv: npt.NDArray[np.float32],
    mask_bw: npt.NDArray[np.int32],
) -> None: ...
def bias_logits(
    logits_bv: npt.NDArray[np.float32],
    ids_n: npt.NDArray[np.int32],
    biases_n: npt.NDArray[np.float32],
    offsets: npt.NDArray[np.int64],
) -> None: ...
def penalize_logits(
    logits_bv: npt.NDArray[np.float32],
    ids_n: npt.NDArray[np.int32],
    offsets: npt.NDArray[np.int64],
    repeat_b: npt.NDArray[np.float32],
    frequency_b: npt.NDArray[np.float32],
    presence_b: npt.NDArray[np.float32],
) -> None: ...
def argmax(
    logits_bv: npt.NDArray[np.float32],
    mask_bw: npt.NDArray[np.int32] | None = None,
) -> npt.NDArray[np.int32]: ...
def log_softmax(
    logits_bv: npt.NDArray[np.float32],
    ids_n: npt.NDArray[np.int32],
    offsets: npt.NDArray[np.int64] | None = None,
) -> npt.NDArray[np.float32]: ...
def sample(
    logits_bv: npt.NDArray[np.float32],
    coins_b: npt.NDArray[np.float64],
    temperature_b: npt.NDArray[np.float32],
    top_k_b: npt.NDArray[np.int32],
    top_p_b: npt.NDArray[np.float32],
    min_p_b: npt.NDArray[np.float32],
    mask_bw: npt.NDArray[np.int32] | None = None,
) -> npt.NDArray[np.int32]: ...
