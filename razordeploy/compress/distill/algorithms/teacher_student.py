"""The forerunner's way to say what is distilled: pairs of modules, each with its losses."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from razordeploy.compress.algorithm.build import split_type
from razordeploy.compress.distill.algorithms.single_teacher import SingleTeacherDistill
from razordeploy.compress.distill.losses.table import LOSSES
from razordeploy.errors import RecipeError, nearest

Component = Mapping[str, Any]
_KEYS = ("student_module", "teacher_module", "losses", "connector", "record_idx")


class TeacherStudentDistillation(SingleTeacherDistill):
    """``SingleTeacherDistill`` whose distiller is written as pairs of modules.

    Args:
        student: another name of ``architecture``.
        components: ``dict(student_module='layer3', teacher_module='layer3', losses=[dict(type='L2Loss',
            loss_weight=1.0)], connector=dict(...), record_idx=0)``; connector and record_idx may be left out.
        options: as for ``SingleTeacherDistill``.

    Raises:
        RecipeError: a component or loss that cannot be understood; ``distiller`` beside ``components``.
    """

    recorder = "ModuleOutputs"

    def __init__(
        self, components: Sequence[Component] = (), student: Any = None, architecture: Any = None, **options: Any
    ) -> None:
        if (student is None) == (architecture is None):
            raise RecipeError(f"{type(self).__name__}: expected 'student' (or 'architecture'), one of the two")
        if bool(components) == ("distiller" in options):
            raise RecipeError(f"{type(self).__name__}: expected 'components' (or a 'distiller'), one of the two")
        distiller = options.pop("distiller", None) or distiller_of(components, self.recorder, self.default_losses)
        super().__init__(architecture=student if architecture is None else architecture, distiller=distiller, **options)

    @staticmethod
    def default_losses(index: int, count: int) -> list[dict[str, Any]] | None:
        """Losses of a component that names none; None: it has to name some."""
        del index, count
        return None


class ABTeacherStudentDistillation(TeacherStudentDistillation):
    """Activation boundaries: what is recorded goes *into* the named activations, and the loss is ``ABLoss``.

    Knowledge Transfer via Distillation of Activation Boundaries (Heo et al. 2019, arXiv 1811.03233): weights halve
    from the last component to the first; the student's own loss is left out unless it is asked for, since boundaries
    are learned before the classifier.

    Args:
        components: as for ``TeacherStudentDistillation``.
        calculate_student_loss: add the student's own losses.
        options: as for ``TeacherStudentDistillation``.
    """

    recorder = "ModuleInputs"

    def __init__(
        self, components: Sequence[Component] = (), calculate_student_loss: bool = False, **options: Any
    ) -> None:
        super().__init__(components=components, calculate_student_loss=calculate_student_loss, **options)

    @staticmethod
    def default_losses(index: int, count: int) -> list[dict[str, Any]] | None:
        """``ABLoss`` of weight 1/2^(count - 1 - index)."""
        return [{"type": "ABLoss", "loss_weight": 2.0 ** (index + 1 - count)}]


def distiller_of(components: Sequence[Component], recorder: str, default_losses: Any) -> dict[str, Any]:
    """The ``ConfigurableDistiller`` of these components.

    Raises:
        RecipeError: an unknown key, a missing module, or a loss of another form than (student, teacher).
    """
    made: dict[str, dict[str, Any]] = {
        key: {}
        for key in ("student_recorders", "teacher_recorders", "connectors", "distill_losses", "loss_forward_mappings")
    }
    for index, component in enumerate(components):
        where = f"components[{index}]"
        for key in component:
            if key not in _KEYS:
                raise RecipeError(f"{where}: unknown key '{key}'", hint=nearest(str(key), _KEYS))
        for key in _KEYS[:2]:
            if not isinstance(component.get(key), str):
                raise RecipeError(f"{where}: expected '{key}' as the name of a module, got {component.get(key)!r}")
        name = f"component{index}"
        made["student_recorders"][name] = {"type": recorder, "source": component["student_module"]}
        made["teacher_recorders"][name] = {"type": recorder, "source": component["teacher_module"]}
        record = {"recorder": name, "record_idx": component.get("record_idx", 0)}
        if recorder == "ModuleInputs":
            record["data_idx"] = 0
        through = {}
        if component.get("connector"):
            made["connectors"][name] = component["connector"]
            through = {"connector": name}
        losses = component.get("losses") or default_losses(index, len(components))
        if not losses:
            raise RecipeError(f"{where}: expected 'losses' as a list of dict(type=...)")
        for number, loss in enumerate(losses):
            label = str(loss.get("name", f"loss_{index}_{number}"))
            label = label if "loss" in label else f"loss_{label}"
            made["distill_losses"][label] = {key: value for key, value in loss.items() if key != "name"}
            student, teacher = _arguments(loss, where)
            made["loss_forward_mappings"][label] = {
                student: {**record, **through, "from_student": True},
                teacher: {**record, "from_student": False},
            }
    return made


def _arguments(loss: Mapping[str, Any], where: str) -> tuple[str, str]:
    """What a loss calls the student's and the teacher's side."""
    name, _ = split_type(loss, "loss")
    if name not in LOSSES:
        raise RecipeError(f"{where}: unknown loss '{name}'", hint=nearest(name, LOSSES))
    signature = inspect.signature(LOSSES[name].forward)
    needed = [p.name for p in signature.parameters.values() if p.default is p.empty and p.name != "self"]
    if len(needed) != 2:
        raise RecipeError(
            f"{where}: {name} takes {', '.join(needed)}, not a student and a teacher alone",
            hint="write the distiller out: distiller=dict(student_recorders=..., loss_forward_mappings=...)",
        )
    return needed[0], needed[1]
