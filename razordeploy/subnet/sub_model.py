"""A subnet as one config: mmrazor's ``sub_model``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from razordeploy.errors import ModelError
from razordeploy.subnet.fix import load_fix_subnet


def sub_model(
    cfg: Mapping[str, Any] | nn.Module,
    fix_subnet: str | Path | Mapping[str, Any],
    mode: str | None = None,
    prefix: str = "",
    extra_prefix: str = "",
    init_weight_from_supernet: bool = False,
    init_cfg: dict[str, Any] | None = None,
    example_inputs: Any = None,
    data_preprocessor: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Build the supernet of ``cfg`` and make it the subnet of ``fix_subnet``: a plain, static model.

    Args:
        cfg: a model's config, or the model itself.
        fix_subnet: as of ``load_fix_subnet``, and so are ``mode``, ``prefix``, ``extra_prefix`` and ``example_inputs``.
        mode: see there.
        prefix: see there.
        extra_prefix: see there.
        init_weight_from_supernet: initialise the supernet by its ``init_cfg``, a checkpoint of the supernet for
            instance, before it is sliced; else the subnet is initialised, by ``init_cfg``.
        init_cfg: mmengine's initialisation of the subnet.
        example_inputs: see there.
        data_preprocessor: that of ``cfg`` where it has none; mmengine's scripts give it to the outermost model.

    Raises:
        ModelError: as of ``load_fix_subnet``, or both ways of initialisation are given.
        RecipeError: ``cfg`` names an unknown model.
    """
    if init_weight_from_supernet and init_cfg is not None:
        raise ModelError(
            "init_cfg initialises the subnet and init_weight_from_supernet takes the supernet's weights: give one"
        )
    if isinstance(cfg, nn.Module):
        model: Any = cfg
    else:
        from razordeploy.registry import build_model

        if data_preprocessor is not None:
            cfg = {"data_preprocessor": data_preprocessor, **cfg}
        model = build_model(cfg, "model")
    if init_weight_from_supernet:
        if not callable(getattr(model, "init_weights", None)):
            raise ModelError(f"{type(model).__name__} has no init_weights() to take the supernet's weights by")
        model.init_weights()
    load_fix_subnet(model, fix_subnet, mode, prefix, extra_prefix, example_inputs=example_inputs)
    if hasattr(model, "init_cfg"):
        # What the supernet is initialised by does not fit the subnet.
        model.init_cfg = init_cfg
    return model


FUNCTIONS = {"sub_model": sub_model}
"""Functions that a config may name in place of a model."""
