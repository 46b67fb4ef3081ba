"""LoRA adapters: into the store, and from there to the engine of the model they were made for.

llama.cpp would take an adapter for any model of the same shape, and answer nonsense. So an adapter
is added for one model of the store, and used on exactly that version of it.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from sprat.errors import CorruptFile, InvalidInput, NotFound, StaleAdapter, UnsupportedModel
from sprat.manifest import (
    ADAPTER_MANIFEST,
    AdapterManifest,
    ModelManifest,
    ModelRef,
    list_files,
    write,
)
from sprat.store import Store, as_name

WEIGHTS = "adapter.gguf"


def add(
    path: Path,
    store: Store,
    *,
    base: str,
    name: str | None = None,
    licence: str | None = None,
    replace: bool = False,
) -> AdapterManifest:
    """Check an adapter and copy it into the store.

    Parameters
    ----------
    path : Path
        A GGUF file with a LoRA adapter, which is copied and never changed.
    store : Store
        Where to put it.
    base : str
        The model of the store that it was made for. Its digest is recorded.
    name : str, optional
        Name in the store. Absent: made from the file's.
    licence : str, optional
        Absent: as the file states it.
    replace : bool
        Overwrite an adapter of that name.

    Returns
    -------
    AdapterManifest
        As it stands in the store.

    Raises
    ------
    NotFound
        There is no such file or model.
    InvalidInput
        The model cannot have adapters, or a malformed name.
    CorruptFile, UnsupportedModel
        The file is no LoRA adapter that fits the model.
    StoreError
        The store cannot be written, or the name is taken.
    """
    if not path.is_file():
        raise NotFound("file", str(path))
    model, model_folder = store.model(base)
    if model.engine != "llama":
        raise InvalidInput(
            f"base: expected a generative model, but {base} is an {model.kind}", field="base"
        )
    name = as_name(path.stem) if name is None else name

    def build(folder: Path) -> None:
        from sprat.quantize import gguf_adapter

        weights = folder / WEIGHTS
        store.require_space(path.stat().st_size)
        shutil.copyfile(path, weights)
        # The folder will be gone after an error: name the file by where it came from.
        try:
            facts = gguf_adapter.inspect(weights, base=model_folder / model.weights)
        except UnsupportedModel as error:
            raise UnsupportedModel(error.message.replace(str(weights), str(path))) from None
        except CorruptFile as error:
            if error.path != str(weights):
                raise
            raise CorruptFile(str(path), error.message.removeprefix(f"{weights}: ")) from None
        write(
            folder / ADAPTER_MANIFEST,
            AdapterManifest(
                name=name,
                kind="lora",
                base=ModelRef(name=model.name, digest=model.digest),
                weights=WEIGHTS,
                rank=facts.rank,
                alpha=facts.alpha,
                licence=licence or facts.licence or "not stated",
                source=f"file:{path.absolute()}",
                files=list_files(folder),
            ),
        )

    return store.add_adapter(name, build, replace=replace)[0]


def resolve(names: Iterable[str], store: Store, *, base: ModelManifest) -> dict[str, Path]:
    """Find adapters for a model that is about to be loaded, and verify them.

    Parameters
    ----------
    names : iterable of str
        In the store.
    base : ModelManifest
        The model they are to be used with.

    Returns
    -------
    dict of str to Path
        The verified GGUF file of each.

    Raises
    ------
    NotFound
        With the names that are here.
    CorruptFile
        A manifest or a file is not what it should be.
    StaleAdapter
        It was made for another model than ``base``, or another version of it.
    """
    found = {}
    for name in names:
        manifest, folder = store.adapter(name, check=True)
        check_base(manifest, folder, base)
        if manifest.weights not in {entry.path for entry in manifest.files}:
            raise CorruptFile(
                str(folder / ADAPTER_MANIFEST), f"files: {manifest.weights} is not listed"
            )
        found[name] = folder / manifest.weights
    return found


def check_base(manifest: AdapterManifest, folder: Path, base: ModelManifest) -> None:
    """Check that a model is the one that an adapter was made for.

    Raises
    ------
    StaleAdapter
        Names both versions.
    """
    if manifest.base.digest != base.digest:
        raise StaleAdapter(
            str(folder),
            f"made for {manifest.base.name} version {manifest.base.digest[:12]}, but "
            f"{base.name} here is version {base.version}; add it again for this one",
        )
