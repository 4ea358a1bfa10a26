"""Overhaul of feature distillation: margins from the teacher's batch norms."""

from __future__ import annotations

from torch import nn

from razordeploy.compress.distill.connectors.ofd import OFDTeacherConnector, margin_of
from razordeploy.compress.distill.distillers.configurable import ConfigurableDistiller, Record
from razordeploy.compress.distill.losses.ofd import OFDLoss
from razordeploy.errors import ModelError, RecipeError


class OFDDistiller(ConfigurableDistiller):
    """A ``ConfigurableDistiller`` that sets the margin of every ``OFDTeacherConnector``.

    The teacher records that go through one come from the batch norms in front of its ReLUs, or, where a sum stands in
    between, the connectors name those.
    """

    def init_ofd_connectors(self, teacher: nn.Module) -> None:
        """Compute the margins from ``teacher``, whose weights are loaded.

        Raises:
            RecipeError: the teacher's feature of an ``OFDLoss`` does not go through an ``OFDTeacherConnector``.
            ModelError: its source is no batch norm.
        """
        for name, arguments in self.mappings.items():
            record = arguments.get("t_feature")
            if not isinstance(self.distill_losses[name], OFDLoss) or not isinstance(record, Record):
                continue
            connector = self.connectors[record.connector] if record.connector else None
            if record.from_student or not isinstance(connector, OFDTeacherConnector):
                raise RecipeError(
                    f"loss_forward_mappings.{name}.t_feature: expected the teacher's feature through an "
                    "OFDTeacherConnector",
                    hint="connector='...' of type OFDTeacherConnector, from_student=False",
                )
            names = dict(teacher.named_modules())
            source = connector.norm or self.teacher_recorders.get_recorder(record.recorder).source
            if source not in names:
                raise ModelError(f"connector '{record.connector}': the teacher has no module '{source}'")
            connector.init_margin(margin_of(names[source]))
