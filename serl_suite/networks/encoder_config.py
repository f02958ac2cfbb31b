"""Settings of what turns pictures into numbers; without torch, so that a command line is read before it is imported."""

import msgspec

from serl_suite.errors import SerlError

__all__ = ["RANDOM", "BadEncoder", "EncoderConfig"]

RANDOM = "random"
"""The name by which a frozen random network is asked for."""


class BadEncoder(SerlError):
    """Settings, weights or pictures that do not go together; says which, and what to change."""


class EncoderConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How pictures are seen. Only for environments that observe some."""

    backbone: str = "cnn"
    """cnn: small, meant to be trained from scratch. dilated: the same with finer maps. resnet10, resnet18: with
    GroupNorm. timm:NAME: any of timm's."""
    weights: str | None = None
    """What the backbone starts with: a file of `serl encoder pretrain`, as a path or as a name in the folder
    SERL_WEIGHTS; `random`: a random network on purpose. Unset: random, for a backbone that is then trained."""
    frozen: bool = False
    """Whether the backbone stays as it is; what follows it is trained in any case."""
    embeddings: int = 8
    """Spatial learned embeddings of each feature map."""
    width: int = 256
    """Numbers that each camera comes to."""
    proprioception_width: int = 64
    """Numbers that the state beside the pictures comes to."""
    shift: int = 4
    """Largest random shift of a picture [pixels]."""
    stored_shifts: int = 0
    """For a frozen backbone: how many random shifts of each picture the replay keeps the features of, in place of the
    picture; 0: it keeps pictures, and each update looks at them anew."""

    def __post_init__(self) -> None:
        if self.frozen and self.weights is None:
            raise BadEncoder(
                f"a frozen {self.backbone} needs weights: name a file (see `serl encoder pretrain --help`), or "
                f"`{RANDOM}` if a random network is what you want"
            )
        if self.stored_shifts and not self.frozen:
            raise BadEncoder(
                "stored_shifts keeps features, which only stay true where the backbone is frozen"
            )
        if min(self.embeddings, self.width, self.proprioception_width) < 1 or self.stored_shifts < 0:
            raise BadEncoder("embeddings and widths are positive, stored_shifts is 0 or more")
        if self.shift < 0:
            raise BadEncoder(f"shift is {self.shift}; give 0 or more pixels")
