"""Backbone weights as files: safetensors, with what they are in a JSON header.

A file is named by its path, or by its name in the folder $SERL_WEIGHTS.
"""

import difflib
import hashlib
import os
from pathlib import Path

import msgspec
import safetensors.torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from serl_suite.networks.encoder_config import RANDOM, BadEncoder, EncoderConfig

__all__ = [
    "FOLDER", "WeightsInfo", "encode_weights", "find_weights", "load_into", "load_tensors", "read_weights",
    "weights_fingerprint",
]  # fmt: skip

FOLDER = "SERL_WEIGHTS"
"""Environment variable: the folder of weights by name."""
SUFFIX = ".safetensors"
HEADER = "serl_backbone"
VERSION = 1
NAMED = 4
"""Tensors that an error lists, at most."""


class WeightsInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What weights are."""

    version: int = VERSION
    backbone: str
    """The architecture, as `EncoderConfig.backbone` names it."""
    side: int | None = None
    """Of the square pictures that they were trained on [pixels], where they suit no other."""
    trained: dict[str, str | int | float]
    """How: the objective and its settings."""
    source: dict[str, int]
    """On what: pictures of each recording or task."""


def encode_weights(backbone: nn.Module, info: WeightsInfo) -> bytes:
    """The contents of a weights file."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in backbone.state_dict().items()}
    return safetensors.torch.save(tensors, {HEADER: msgspec.json.encode(info).decode()})


def read_weights(path: Path) -> tuple[dict[str, Tensor], WeightsInfo | None]:
    """The tensors, and what they are where `encode_weights` made the file; None where another program did.

    Raises:
        BadEncoder: The file is damaged, no safetensors, or of another version.
    """
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(HEADER)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise BadEncoder(
            f"{path} is damaged, or no safetensors file ({error}); copy it again, or train weights: "
            "serl encoder pretrain --help"
        ) from error
    return tensors, None if text is None else _info(path, text)


def find_weights(name: str) -> Path:
    """The file of that path, or of that name in $SERL_WEIGHTS, with or without its suffix.

    Raises:
        BadEncoder: There is none.
    """
    path = Path(name).expanduser()
    if path.is_file():
        return path
    folder = os.environ.get(FOLDER)
    if not folder:
        raise BadEncoder(
            f"no weights file {name}, and {FOLDER} is not set: give a path, or name the folder that holds it: "
            f"export {FOLDER}=FOLDER. `serl encoder pretrain` trains weights without a network"
        )
    for candidate in (Path(folder, name), Path(folder, name + SUFFIX)):
        if candidate.is_file():
            return candidate
    there = sorted(file.stem for file in Path(folder).glob(f"*{SUFFIX}"))
    near = difflib.get_close_matches(path.stem, there, n=1)
    hint = f"did you mean {near[0]}?" if near else f"it holds {', '.join(there) or f'no *{SUFFIX} file'}"
    raise BadEncoder(f"no weights {name}, neither as a path nor in {FOLDER}={folder}; {hint}")


def load_into(backbone: nn.Module, config: EncoderConfig, side: int) -> None:
    """Gives a backbone the weights that the settings name.

    Args:
        backbone: Of the architecture that the settings name.
        config: `weights` names a file.
        side: Of the pictures that it will see [pixels].

    Raises:
        BadEncoder: There is no such file, it is damaged, or it is of another architecture or picture side.
    """
    path = find_weights(config.weights or "")
    tensors, info = read_weights(path)
    if info is None:
        raise BadEncoder(
            f"{path} does not say which architecture it is of: it is no file of `serl encoder pretrain`. Weights of "
            "timm's models go with backbone timm:NAME"
        )
    if info.backbone != config.backbone:
        raise BadEncoder(
            f"{path} holds weights of {info.backbone}, not of {config.backbone}; set the backbone to "
            f"{info.backbone}, or train others: serl encoder pretrain --backbone {config.backbone}"
        )
    if info.side not in (None, side):
        raise BadEncoder(
            f"{path} was trained on pictures of {info.side} x {info.side}, these are {side} x {side}; observe "
            f"pictures of {info.side}, or train others: serl encoder pretrain --side {side}"
        )
    load_tensors(backbone, tensors, path, config.backbone)


def load_tensors(backbone: nn.Module, tensors: dict[str, Tensor], path: Path, name: str) -> None:
    """Loads what the backbone has, no less and no more.

    Raises:
        BadEncoder: Names or shapes differ.
    """
    own = {key: tuple(tensor.shape) for key, tensor in backbone.state_dict().items()}
    theirs = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
    if own != theirs:
        different = [
            f"{key} is {theirs.get(key, 'absent')} there, {own.get(key, 'absent')} in {name}"
            for key in sorted(own.keys() | theirs.keys())
            if own.get(key) != theirs.get(key)
        ]
        more = f" and {len(different) - NAMED} more" if len(different) > NAMED else ""
        raise BadEncoder(
            f"{path} holds weights of another architecture than {name}: {'; '.join(different[:NAMED])}{more}; "
            "give the weights of this one, or name the backbone that they are of"
        )
    backbone.load_state_dict(tensors)


def weights_fingerprint(config: EncoderConfig) -> str | None:
    """What tells two frozen backbones apart: of a file the sha256 of its contents; None where the backbone is
    trained, and so published with the policy.

    Raises:
        BadEncoder: The file is not there.
    """
    if not config.frozen:
        return None
    if config.weights == RANDOM:
        return f"{config.backbone} {RANDOM}"
    with find_weights(config.weights or "").open("rb") as file:
        return f"{config.backbone} sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def _info(path: Path, text: str) -> WeightsInfo:
    try:
        version = msgspec.json.decode(text, type=dict[str, object]).get("version")
        if version != VERSION:
            raise BadEncoder(
                f"{path} has weights version {version}, this serl_suite reads {VERSION}; use the version that "
                "wrote it, or train anew: serl encoder pretrain --help"
            )
        return msgspec.json.decode(text, type=WeightsInfo)
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadEncoder(f"{path} is damaged ({error}); copy it again, or train anew") from error
