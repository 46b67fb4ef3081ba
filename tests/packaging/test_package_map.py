"""setup.py lists packages by hand: the list and the tree must agree."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TOPS = {
    "sprat": "runtime",
    "sprat.kernels": "kernels",
    "sprat.kernels.reference": "kernels/reference",
    "sprat.quantize": "quantize",
    "sprat.proto": "proto",
    "sprat.benchmarks": "benchmarks",
}


def listed() -> dict[str, str]:
    for node in ast.parse((ROOT / "setup.py").read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "PACKAGES":
            packages = ast.literal_eval(node.value)
            assert isinstance(packages, dict)
            return packages
    raise AssertionError("setup.py assigns no PACKAGES")


def test_package_map_lists_every_folder_with_modules() -> None:
    found = {}
    for package, top in TOPS.items():
        for folder in {module.parent for module in (ROOT / top).rglob("*.py")}:
            below = folder.relative_to(ROOT / top).parts
            found[".".join([package, *below])] = folder.relative_to(ROOT).as_posix()
    assert listed() == found


def test_package_map_lists_regular_packages() -> None:
    for folder in listed().values():
        assert (ROOT / folder / "__init__.py").is_file(), folder


def test_package_map_shadows_no_mapped_package() -> None:
    # An editable install would find runtime/kernels before the kernels/ that is mapped.
    mapped = [top for top in TOPS.values() if top != "runtime"]
    assert [p for top in mapped for p in (ROOT / "runtime").glob(f"{top}*")] == []
