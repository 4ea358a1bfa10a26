"""The channel units that a config may name."""

from __future__ import annotations

from razordeploy.subnet.units.dcff import DCFFChannelUnit
from razordeploy.subnet.units.dmcp import DMCPChannelUnit
from razordeploy.subnet.units.group_fisher import GroupFisherChannelUnit
from razordeploy.subnet.units.l1 import L1MutableChannelUnit
from razordeploy.subnet.units.mutable_unit import MutableChannelUnit
from razordeploy.subnet.units.one_shot import OneShotMutableChannelUnit
from razordeploy.subnet.units.sequential import SequentialMutableChannelUnit
from razordeploy.subnet.units.slimmable import SlimmableChannelUnit

UNITS: dict[str, type[MutableChannelUnit]] = {
    "DCFFChannelUnit": DCFFChannelUnit,
    "DMCPChannelUnit": DMCPChannelUnit,
    "GroupFisherChannelUnit": GroupFisherChannelUnit,
    "L1MutableChannelUnit": L1MutableChannelUnit,
    "OneShotMutableChannelUnit": OneShotMutableChannelUnit,
    "SequentialMutableChannelUnit": SequentialMutableChannelUnit,
    "SlimmableChannelUnit": SlimmableChannelUnit,
}
