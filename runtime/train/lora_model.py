"""A GGUF model in torch with LoRA matrices beside its own: what is trained, and what is not.

The model's own weights are float32, dequantized from the file, and stay as they are. So what is
learned fits the very weights that llama.cpp will use it with.
"""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sprat.errors import SetupError, UnsupportedModel
from sprat.quantize.gguf_lora import LINEAR, Pair, read_base
from sprat.train.packs import Pack
from sprat.values import FloatArray, IntArray

if TYPE_CHECKING:
    import torch

NEEDED = ("torch", "transformers", "peft", "accelerate", "gguf")

_A, _B = ".lora_A.default.weight", ".lora_B.default.weight"
_LAYERS = ".layers."


def require() -> None:
    """Check that what `LoraModel` needs is installed.

    Raises
    ------
    SetupError
        With the command that installs it.
    """
    for package in NEEDED:
        if find_spec(package) is None:
            raise SetupError(
                f"training an adapter needs {package}; install it with: "
                "pip install 'sprat[llama,finetune]'"
            )


class LoraModel:
    """A model and its LoRA matrices: A small and random, B zero, on each linear map of each layer.

    Parameters
    ----------
    path : Path
        GGUF file, of an architecture in `sprat.quantize.gguf_lora.ARCHITECTURES`.
    rank : int
        Of the matrices.
    alpha : float
        Their products are multiplied by ``alpha / rank``.
    seed : int
        Of A.
    threads : int
        Most compute threads, for all of torch in this process. Sums depend on their number in
        their last bits.
    bf16 : bool
        Multiply matrices in bfloat16 while training. All else is float32, the logits among it.

    Raises
    ------
    SetupError
        torch, transformers, peft or accelerate is not installed.
    UnsupportedModel
        transformers cannot read the file.
    """

    def __init__(
        self, path: Path, *, rank: int, alpha: float, seed: int, threads: int, bf16: bool = False
    ) -> None:
        require()
        import torch
        from peft import LoraConfig, get_peft_model

        # OMP_NUM_THREADS may ask for fewer.
        torch.set_num_threads(min(threads, torch.get_num_threads()))
        base = _load(path)
        torch.manual_seed(seed)
        config = LoraConfig(
            r=rank,
            lora_alpha=alpha,
            target_modules=[name.rpartition(".")[2] for name in LINEAR],
            lora_dropout=0.0,
        )
        with warnings.catch_warnings():
            # It asks torch for things of old.
            warnings.simplefilter("ignore")
            self._peft = get_peft_model(base, config)
        self._body = base.model
        self._bf16 = bf16
        self._head = base.lm_head.weight
        self.parameters: dict[str, torch.nn.Parameter] = {
            name: parameter
            for name, parameter in self._peft.named_parameters()
            if parameter.requires_grad
        }

    def nll(self, pack: Pack) -> torch.Tensor:
        """Negative log-likelihood of each step, in nats: float32[S], with gradients."""
        import torch

        with torch.autocast("cpu", torch.bfloat16, enabled=self._bf16):
            hidden_sd = self._hidden(pack.ids, pack.positions, pack.visible(), pack.steps)
        logits_sv = hidden_sd.float() @ self._head.T
        limited = [row for row, among in enumerate(pack.among) if among]
        if limited:
            allowed = torch.full_like(logits_sv, -torch.inf)
            for row, among in enumerate(pack.among):
                allowed[row, list(among) if among else slice(None)] = 0
            logits_sv = logits_sv + allowed
        targets = torch.from_numpy(pack.targets.astype(np.int64))
        return torch.nn.functional.cross_entropy(logits_sv, targets, reduction="none")

    def logits(self, ids: IntArray) -> FloatArray:
        """What follows a row of tokens: float32[V]."""
        import torch

        positions = np.arange(len(ids), dtype=np.int32)
        visible = np.tril(np.ones((len(ids), len(ids)), bool))
        with torch.no_grad():
            last = np.array([len(ids) - 1], np.int32)
            logits: FloatArray = (self._hidden(ids, positions, visible, last) @ self._head.T)[
                0
            ].numpy()
        return logits

    def _hidden(
        self,
        ids: IntArray,
        positions: IntArray,
        visible: npt.NDArray[np.bool_],
        wanted: IntArray,
    ) -> torch.Tensor:
        import torch

        found: torch.Tensor = self._body(
            input_ids=torch.from_numpy(ids.astype(np.int64))[None],
            position_ids=torch.from_numpy(positions.astype(np.int64))[None],
            attention_mask=torch.from_numpy(visible)[None, None],
            use_cache=False,
        ).last_hidden_state
        return found[0, torch.from_numpy(wanted.astype(np.int64))]

    def pairs(self) -> dict[tuple[int, str], Pair]:
        """A and B of each linear map, by layer and name, as `gguf_lora.write` takes them."""
        found = {}
        for name, parameter in self.parameters.items():
            if not name.endswith(_A):
                continue
            layer, _, linear = name.rpartition(_LAYERS)[2].removesuffix(_A).partition(".")
            b = self.parameters[name.removesuffix(_A) + _B]
            found[int(layer), linear] = (_array(parameter), _array(b))
        return found


def _array(parameter: torch.Tensor) -> FloatArray:
    array: FloatArray = parameter.detach().numpy().copy()
    return array


def _load(path: Path) -> Any:
    import torch
    import transformers

    # It takes the usual size of an architecture's heads, whatever the file says.
    size = read_base(path).head_size
    known = {} if size is None else {"head_dim": size}
    level = transformers.utils.logging.get_verbosity()
    transformers.utils.logging.set_verbosity(logging.ERROR)
    try:
        # It shows bars of its own.
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
            model = transformers.AutoModelForCausalLM.from_pretrained(
                path.parent, gguf_file=path.name, dtype=torch.float32, **known
            )
    except (ValueError, KeyError, RuntimeError) as error:
        raise UnsupportedModel(
            f"{path}: transformers cannot read it: {type(error).__name__}"
        ) from error
    finally:
        transformers.utils.logging.set_verbosity(level)
    # Weights are plain float32 by now; peft would look for the methods of a quantized model.
    model.is_quantized = False
    model.config.quantization_config = None
    model.quantization_method = None
    model.eval()
    return model
