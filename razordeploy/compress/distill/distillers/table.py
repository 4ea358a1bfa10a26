"""The distillers that a recipe may name."""

from __future__ import annotations

from razordeploy.compress.distill.distillers.byot import BYOTDistiller
from razordeploy.compress.distill.distillers.configurable import ConfigurableDistiller
from razordeploy.compress.distill.distillers.ofd import OFDDistiller

DISTILLERS: dict[str, type[ConfigurableDistiller]] = {
    "BYOTDistiller": BYOTDistiller,
    "ConfigurableDistiller": ConfigurableDistiller,
    "OFDDistiller": OFDDistiller,
}
