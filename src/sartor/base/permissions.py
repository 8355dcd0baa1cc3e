"""What a person allowed, on the command line or in code; never read from a file of settings."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Permissions:
    """What only a person can allow: files outside the dataset folder, scripts, the network, a model's own code."""

    allow_outside: bool = False
    allow_scripts: bool = False
    allow_network: bool = False
    trust_remote_code: bool = False


NOTHING_ALLOWED = Permissions()
