"""One checkpoint is one file: tensors as safetensors, everything else as JSON in its header."""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import torch
from safetensors import SafetensorError, safe_open

from serl_suite.data.durable import write_durably
from serl_suite.errors import SerlError

__all__ = ["BadCheckpoint", "load_checkpoint", "save_checkpoint"]

VERSION = 1
HEADER = "serl_suite"
DTYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
    torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
"""As safetensors names them."""


class BadCheckpoint(SerlError):
    """A checkpoint that cannot be used."""


class _Header(msgspec.Struct, frozen=True, kw_only=True):
    version: int
    meta: dict[str, Any]


def save_checkpoint(path: Path, tensors: dict[str, torch.Tensor], meta: dict[str, Any]) -> None:
    """Writes durably: a crash leaves the old file or the new one. Other threads go on meanwhile.

    Args:
        path: Replaced if it exists.
        tensors: Of any device; read before this returns.
        meta: JSON types (counters, configuration, generator states).

    Raises:
        DiskFull: what was there before is untouched.
    """
    header = msgspec.json.encode(_Header(version=VERSION, meta=meta)).decode()
    write_durably(path, *_safetensors(tensors, {HEADER: header}))


def _safetensors(tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> Iterator[memoryview | bytes]:
    """A safetensors file in parts, without the copies that its own package makes while no other thread can run."""
    names = sorted(
        tensors, key=lambda name: (-tensors[name].element_size(), name)
    )  # so that each lies aligned
    table: dict[str, Any] = {"__metadata__": metadata}
    end = 0
    for name in names:
        tensor = tensors[name]
        start, end = end, end + tensor.numel() * tensor.element_size()
        table[name] = {
            "dtype": DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]
        }  # fmt: skip
    text = msgspec.json.encode(table)
    text += b" " * (-len(text) % 8)
    yield struct.pack("<Q", len(text)) + text
    for name in names:
        flat = tensors[name].detach().cpu().contiguous().view(-1)
        yield flat.view(torch.uint8).numpy().data


def load_checkpoint(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The tensors and the meta that were saved.

    Raises:
        BadCheckpoint: absent, damaged or of another version; the message says which and what to do.
    """
    if not path.is_file():
        raise BadCheckpoint(f"no checkpoint at {path}; give the folder of a run that has trained")
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(HEADER)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as e:
        raise BadCheckpoint(f"{path} is damaged ({e}); resume from an older checkpoint of the run") from e
    if text is None:
        raise BadCheckpoint(
            f"{path} holds weights but is no checkpoint of serl_suite; give one from a run folder"
        )
    try:
        version = msgspec.json.decode(text, type=dict[str, Any]).get("version")
        header = msgspec.json.decode(text, type=_Header) if version == VERSION else None
    except (msgspec.DecodeError, RecursionError) as e:
        raise BadCheckpoint(f"{path} is damaged ({e}); resume from an older checkpoint of the run") from e
    if header is None:
        raise BadCheckpoint(
            f"{path} has checkpoint version {version}, this serl_suite reads {VERSION}; "
            "use the version that wrote it (see config in the run folder) or train anew"
        )
    return tensors, header.meta
