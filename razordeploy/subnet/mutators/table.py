"""The mutators that a config may name."""

from __future__ import annotations

from razordeploy.subnet.mutators.base import BaseMutator
from razordeploy.subnet.mutators.channel import ChannelMutator
from razordeploy.subnet.mutators.dmcp import DMCPChannelMutator
from razordeploy.subnet.mutators.module import DiffModuleMutator, DynamicValueMutator, OneShotModuleMutator
from razordeploy.subnet.mutators.nas import NasMutator
from razordeploy.subnet.mutators.pruners import (
    DCFFChannelMutator,
    GroupFisherChannelMutator,
    OneShotChannelMutator,
    SlimmableChannelMutator,
)

MUTATORS: dict[str, type[BaseMutator]] = {
    "ChannelMutator": ChannelMutator,
    "DCFFChannelMutator": DCFFChannelMutator,
    "DMCPChannelMutator": DMCPChannelMutator,
    "DiffModuleMutator": DiffModuleMutator,
    "DynamicValueMutator": DynamicValueMutator,
    "GroupFisherChannelMutator": GroupFisherChannelMutator,
    "NasMutator": NasMutator,
    "OneShotChannelMutator": OneShotChannelMutator,
    "OneShotModuleMutator": OneShotModuleMutator,
    "SlimmableChannelMutator": SlimmableChannelMutator,
}
