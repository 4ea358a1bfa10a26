"""The mutables that a config may name."""

from __future__ import annotations

from razordeploy.subnet.mutables.base import BaseMutable
from razordeploy.subnet.mutables.channel import (
    OneShotMutableChannel,
    SequentialMutableChannel,
    SimpleMutableChannel,
    SlimmableMutableChannel,
)
from razordeploy.subnet.mutables.choice_route import DiffChoiceRoute, GumbelChoiceRoute
from razordeploy.subnet.mutables.container import MutableChannelContainer
from razordeploy.subnet.mutables.derived import DerivedMutable
from razordeploy.subnet.mutables.diff_module import DiffMutableOP, OneHotMutableOP
from razordeploy.subnet.mutables.one_shot_module import OneShotMutableOP, OneShotProbMutableOP
from razordeploy.subnet.mutables.value import MutableValue, OneShotMutableValue

MUTABLES: dict[str, type[BaseMutable]] = {
    "DerivedMutable": DerivedMutable,
    "DiffChoiceRoute": DiffChoiceRoute,
    "DiffMutableOP": DiffMutableOP,
    "GumbelChoiceRoute": GumbelChoiceRoute,
    "MutableChannelContainer": MutableChannelContainer,
    "MutableValue": MutableValue,
    "OneHotMutableOP": OneHotMutableOP,
    "OneShotMutableChannel": OneShotMutableChannel,
    "OneShotMutableOP": OneShotMutableOP,
    "OneShotMutableValue": OneShotMutableValue,
    "OneShotProbMutableOP": OneShotProbMutableOP,
    "SequentialMutableChannel": SequentialMutableChannel,
    "SimpleMutableChannel": SimpleMutableChannel,
    "SlimmableMutableChannel": SlimmableMutableChannel,
    "SquentialMutableChannel": SequentialMutableChannel,
}
