"""One value from those that were extracted from the parts of a text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from sprat.text.leaves import Path, Tree, leaves, plain
from sprat.text.schema import Schema


def merge(trees: Sequence[Tree], schema: Schema, path: Path = ()) -> Tree:
    """Merge what stands at the same place of several values.

    - Objects: member by member. Where several schemas may say what an object holds, its members may
      depend on each other: then the best whole object, by what is said of other values.
    - Arrays: items of each in turn, but for those that an array before has too, up to case and
      white space of strings; as many as the schema allows.
    - Others: a value that stands in the text goes before one that does not, then the more probable
      one, then the first. Objects and arrays go before them.

    Parameters
    ----------
    trees : sequence of Tree
        At least one, in the order of the text.
    path : Path
        Their place in the schema.
    """
    objects = [tree for tree in trees if isinstance(tree, dict)]
    if objects:
        if not schema.is_plain_object(path):
            return max(objects, key=_worth)
        keys = dict.fromkeys(key for tree in objects for key in tree)
        return {
            key: merge([tree[key] for tree in objects if key in tree], schema, (*path, key))
            for key in keys
        }
    arrays = [tree for tree in trees if isinstance(tree, list)]
    if arrays:
        joined: list[Tree] = []
        seen: set[str] = set()
        for array in arrays:
            names = [json.dumps(_folded(plain(item)), sort_keys=True) for item in array]
            joined += [item for item, name in zip(array, names, strict=True) if name not in seen]
            seen.update(names)
        return joined[: schema.most_items(path)]
    return max(trees, key=_worth)


def _worth(tree: Tree) -> tuple[float, float]:
    """Share of leaves that stand in the text, and mean of their probabilities."""
    found = [leaf for _, leaf in leaves(tree)]
    count = max(1, len(found))
    grounded = sum(leaf.place is not None for leaf in found)
    return grounded / count, sum(leaf.score for leaf in found) / count


def _folded(value: Any) -> Any:
    if isinstance(value, str):
        return " ".join(value.split()).casefold()
    if isinstance(value, dict):
        return {key: _folded(child) for key, child in value.items()}
    if isinstance(value, list):
        return [_folded(child) for child in value]
    return value
