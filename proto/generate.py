"""Generates the committed ``*_pb2*`` modules from the .proto files beside this script.

Run it after editing a .proto file: ``make proto``. ``--check`` only compares, for CI.
Needs ``grpcio-tools`` (extra ``dev``).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
SOURCES = ("v1/sprat.proto",)


def generate(out: Path) -> list[Path]:
    """Generate messages, type stubs and services below ``out/sprat/proto``; return the files."""
    import grpc_tools
    from grpc_tools import protoc

    standard = Path(grpc_tools.__file__).with_name("_proto")
    with tempfile.TemporaryDirectory() as tmp:
        # protoc derives import names from paths: lay the tree out as it is imported.
        root = Path(tmp)
        (root / "sprat").mkdir()
        (root / "sprat" / "proto").symlink_to(HERE, target_is_directory=True)
        for source in SOURCES:
            status = protoc.main(
                [
                    "protoc",
                    f"--proto_path={root}",
                    f"--proto_path={standard}",
                    f"--python_out={out}",
                    f"--pyi_out={out}",
                    f"--grpc_python_out={out}",
                    str(root / "sprat" / "proto" / source),
                ]
            )
            if status != 0:
                raise SystemExit(f"protoc failed on {source}")
    return sorted(p for p in out.rglob("*") if p.is_file())


def main() -> int:
    """Generate into the tree, or compare with it; 1 when a committed file is out of date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare only; exit 1 on a difference")
    arguments = parser.parse_args()
    stale = []
    with tempfile.TemporaryDirectory() as tmp:
        out = Path(tmp)
        for made in generate(out):
            target = HERE / made.relative_to(out / "sprat" / "proto")
            if not target.exists() or target.read_bytes() != made.read_bytes():
                stale.append(target.name)
                if not arguments.check:
                    target.write_bytes(made.read_bytes())
    if stale:
        print("out of date:" if arguments.check else "written:", ", ".join(stale))
    return 1 if stale and arguments.check else 0


if __name__ == "__main__":
    sys.exit(main())
