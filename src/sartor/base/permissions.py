"""What the user allows, on the command line or in code; never read from a settings file."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Permissions:
    """What only the user can allow: files outside the dataset folder, scripts, the network, a model's own code, and
    sending data to the hosts named in `allow_upload`."""

    allow_outside: bool = False
    allow_scripts: bool = False
    allow_network: bool = False
    trust_remote_code: bool = False
    allow_upload: tuple[str, ...] = ()


NOTHING_ALLOWED = Permissions()
