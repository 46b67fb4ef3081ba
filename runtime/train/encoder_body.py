"""A published encoder as torch trains it: read, run as sprat does, written as published.

Three families, as in `sprat.quantize.ct2`: BERT, RoBERTa and DistilBERT. The table of token vectors
stays as it is: it is most of a small model, and a few hundred rows show few of its tokens.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from sprat.errors import SetupError, UnsupportedModel
from sprat.published import WEIGHTS
from sprat.values import IntArray

if TYPE_CHECKING:
    import torch

INSTALL = "fine-tuning needs torch; install it with: pip install 'sprat[finetune]'"


def require() -> None:
    """Raise SetupError where what fine-tuning needs is not installed."""
    try:
        import torch
        import transformers
    except ImportError:
        raise SetupError(INSTALL) from None
    del torch
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()


class EncoderBody:
    """An encoder under training.

    Parameters
    ----------
    source : Path
        Folder with model.safetensors and config.json, as published.
    pooling : {"mean", "cls"}
        How token vectors become a sentence vector.

    Attributes
    ----------
    parameters : dict of str to torch.Tensor
        What is trained, by name.
    dimension : int
        H: length of a state and of a sentence vector.

    Raises
    ------
    SetupError
        torch or transformers is not installed.
    UnsupportedModel
        transformers cannot read the model.
    """

    def __init__(self, source: Path, pooling: Literal["mean", "cls"]) -> None:
        require()
        from transformers import AutoModel

        self._source = source
        self._pooling = pooling
        try:
            self._model: Any = AutoModel.from_pretrained(source, local_files_only=True)
        except (OSError, ValueError) as error:
            raise UnsupportedModel(f"{source}: transformers cannot read it ({error})") from None
        self._model.pooler = None
        self._model.float()
        self._model.embeddings.requires_grad_(requires_grad=False)
        self.parameters: dict[str, torch.Tensor] = {
            name: each for name, each in self._model.named_parameters() if each.requires_grad
        }
        self.dimension: int = self._model.config.hidden_size

    def train(self, *, is_on: bool) -> None:
        """Drop out elements, as training does, or none."""
        self._model.train(is_on)

    def states(self, rows: Sequence[IntArray]) -> tuple[torch.Tensor, torch.Tensor]:
        """The last hidden states of texts.

        Parameters
        ----------
        rows : sequence of int32[T]
            Token ids, special tokens included, 1 to B of them.

        Returns
        -------
        states : float32[B, T, H]
        mask : float32[B, T]
            1 where there is a token, 0 behind a shorter text.
        """
        import torch

        longest = max(map(len, rows))
        ids = np.zeros((len(rows), longest), np.int64)
        mask = np.zeros((len(rows), longest), np.float32)
        for index, row in enumerate(rows):
            ids[index, : len(row)] = row
            mask[index, : len(row)] = 1
        mask_bt = torch.from_numpy(mask)
        states = self._model(input_ids=torch.from_numpy(ids), attention_mask=mask_bt)
        return states.last_hidden_state, mask_bt

    def vectors(self, rows: Sequence[IntArray]) -> torch.Tensor:
        """L2-normalized sentence vectors of texts: float32[B, H]. See `states`."""
        import torch

        states_bth, mask_bt = self.states(rows)
        if self._pooling == "cls":
            pooled = states_bth[:, 0]
        else:
            pooled = (states_bth * mask_bt[..., None]).sum(1) / mask_bt.sum(1, keepdim=True)
        return torch.nn.functional.normalize(pooled, dim=1)

    def save(self, folder: Path, *, tokenizer: Path, max_tokens: int) -> None:
        """Write the encoder into an empty folder, in the form that `sprat.build.encoder` reads.

        Parameters
        ----------
        tokenizer : Path
            The tokenizer.json that belongs to it.
        max_tokens : int
            Longest input, special tokens included.
        """
        from safetensors.numpy import save_file

        tensors = {
            name: np.ascontiguousarray(each.detach().numpy())
            for name, each in self._model.state_dict().items()
            if each.is_floating_point()
        }
        save_file(tensors, folder / WEIGHTS)
        shutil.copyfile(self._source / "config.json", folder / "config.json")
        shutil.copyfile(tokenizer, folder / "tokenizer.json")
        (folder / "sentence_bert_config.json").write_text(
            json.dumps({"max_seq_length": max_tokens}), encoding="utf-8"
        )
        pooling = folder / "1_Pooling"
        pooling.mkdir()
        (pooling / "config.json").write_text(
            json.dumps({"pooling_mode": self._pooling}), encoding="utf-8"
        )


def parts(rows: Sequence[int], lengths: Sequence[int], *, most_tokens: int) -> list[list[int]]:
    """Cut rows into parts that take little padding: neighbours by length, within a budget.

    Parameters
    ----------
    rows : sequence of int
        Indices into ``lengths``.
    most_tokens : int
        Rows of a part times the longest of them, unless a single row is longer.
    """
    made: list[list[int]] = []
    for row in sorted(rows, key=lambda each: lengths[each]):
        if made and (len(made[-1]) + 1) * lengths[row] <= most_tokens:
            made[-1].append(row)
        else:
            made.append([row])
    return made
