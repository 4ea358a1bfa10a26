"""The names of mmrazor's configs: every table of components, put into the registries when this module is imported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from razordeploy import registry
from razordeploy.compress.algorithm.base import BaseAlgorithm
from razordeploy.compress.algorithm.step import MODEL_WRAPPERS
from razordeploy.compress.algorithm.train import OPTIM_WRAPPER_CONSTRUCTORS
from razordeploy.compress.distill.algorithms.table import ALGORITHMS as DISTILLATION
from razordeploy.compress.distill.connectors.table import CONNECTORS
from razordeploy.compress.distill.crd_dataset import TRANSFORMS as CRD_TRANSFORMS
from razordeploy.compress.distill.deliveries.manager import DELIVERIES
from razordeploy.compress.distill.distillers.table import DISTILLERS
from razordeploy.compress.distill.generators.generator import GENERATORS
from razordeploy.compress.distill.losses.table import LOSSES
from razordeploy.compress.distill.recorders.table import RECORDERS
from razordeploy.compress.distill.train import DATASETS
from razordeploy.compress.distill.train import HOOKS as DISTILL_HOOKS
from razordeploy.compress.distill.train import LOOPS as DISTILL_LOOPS
from razordeploy.compress.nas.algorithms.table import ALGORITHMS as NAS
from razordeploy.compress.nas.hooks import HOOKS as NAS_HOOKS
from razordeploy.compress.nas.loops import LOOPS as NAS_LOOPS
from razordeploy.compress.nas.search.metric_predictor import PREDICTORS
from razordeploy.compress.nas.search.predictors import HANDLERS
from razordeploy.compress.nas.supernets.classifier import CLASSIFIERS
from razordeploy.compress.nas.supernets.table import SUPERNETS
from razordeploy.compress.pruning.algorithms.group_fisher import SUB_MODELS
from razordeploy.compress.pruning.algorithms.table import ALGORITHMS as PRUNING
from razordeploy.compress.pruning.hooks import HOOKS as PRUNING_HOOKS
from razordeploy.compress.pruning.loops import LOOPS as PRUNING_LOOPS
from razordeploy.data.auto_augment import TRANSFORMS as AUTO_AUGMENT
from razordeploy.integrations.architecture_quant import ALGORITHMS as QUANTIZATION
from razordeploy.integrations.architecture_quant import WRAPPERS
from razordeploy.integrations.quantizers import QUANTIZERS
from razordeploy.models.wide_resnet import BACKBONES
from razordeploy.quantization.fake_quants.table import FAKE_QUANTS
from razordeploy.quantization.observers.table import OBSERVERS
from razordeploy.quantization.qat.loops import LOOPS as QAT_LOOPS
from razordeploy.subnet.analyzer import TASK_UTILS
from razordeploy.subnet.dynamic_ops.table import DYNAMIC_OPS
from razordeploy.subnet.estimate import ResourceEstimator
from razordeploy.subnet.mutables.table import MUTABLES
from razordeploy.subnet.mutators.table import MUTATORS
from razordeploy.subnet.sub_model import FUNCTIONS
from razordeploy.subnet.units.table import UNITS

_BASES: dict[str, type] = {"BaseAlgorithm": BaseAlgorithm}
_ESTIMATORS: dict[str, type] = {"ResourceEstimator": ResourceEstimator}

# Registry -> tables of name -> class or function.
COMPONENTS: dict[str, tuple[Mapping[str, Any], ...]] = {
    "DATASETS": (DATASETS,),
    "HOOKS": (PRUNING_HOOKS, DISTILL_HOOKS, NAS_HOOKS),
    "LOOPS": (PRUNING_LOOPS, QAT_LOOPS, DISTILL_LOOPS, NAS_LOOPS),
    "MODELS": (
        *(MUTABLES, DYNAMIC_OPS, UNITS, MUTATORS, FUNCTIONS),
        *(SUPERNETS, CLASSIFIERS, BACKBONES, OBSERVERS, FAKE_QUANTS),
        *(_BASES, PRUNING, SUB_MODELS, DISTILLATION, NAS),
        *(LOSSES, CONNECTORS, DISTILLERS, GENERATORS),
        *(QUANTIZERS, QUANTIZATION),
    ),
    "MODEL_WRAPPERS": (MODEL_WRAPPERS, WRAPPERS),
    "OPTIM_WRAPPER_CONSTRUCTORS": (OPTIM_WRAPPER_CONSTRUCTORS,),
    "TASK_UTILS": (TASK_UTILS, _ESTIMATORS, PREDICTORS, HANDLERS, RECORDERS, DELIVERIES),
    "TRANSFORMS": (AUTO_AUGMENT, CRD_TRANSFORMS),
}

for _name, _tables in COMPONENTS.items():
    for _table in _tables:
        for _key, _component in _table.items():
            getattr(registry, _name).register_module(name=_key, module=_component, force=True)
