"""What the plug-in changes in mmdeploy, in the parent process and in each child that reads the deploy config."""

from __future__ import annotations

from razordeploy.integrations.mmdeploy.algorithms import keep_scales, plain_models_in_tasks
from razordeploy.integrations.mmdeploy.calibration import choose_calibration_data, register_subset
from razordeploy.integrations.mmdeploy.children import count_dead_children_as_failed
from razordeploy.integrations.mmdeploy.managers import register_managers
from razordeploy.integrations.mmdeploy.shims import SHIMS

_DONE: list[str] = []


def install() -> None:
    """Apply every change once.

    No backend name is added: a child that unpickles its arguments before it reads the config would not know it. The
    managers of the stock names are replaced instead, and children learn of it through the hooks, which they unpickle
    by the name of this package.
    """
    if _DONE:
        return
    _DONE.append("installed")
    import razordeploy.integrations.mmrazor  # noqa: F401  (the predecessor's component names: sub_model and the like)

    for shim in SHIMS:
        shim()
    plain_models_in_tasks()
    count_dead_children_as_failed()
    register_subset()
    register_managers()
    _add_hooks()


def _add_hooks() -> None:
    from mmdeploy.apis import create_calib_input_data, torch2onnx
    from mmdeploy.apis.core import PIPELINE_MANAGER
    from mmdeploy.apis.utils import to_backend

    PIPELINE_MANAGER.get_input_hooks(torch2onnx).append(keep_scales)
    PIPELINE_MANAGER.get_input_hooks(create_calib_input_data).append(choose_calibration_data)
    PIPELINE_MANAGER.get_input_hooks(to_backend).append(unchanged)


def unchanged(*args: object, **kwargs: object) -> tuple[tuple[object, ...], dict[str, object]]:
    """Pass the arguments on; its name alone brings the plug-in into a child process."""
    return args, kwargs
