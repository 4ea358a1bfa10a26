"""The connectors that a recipe may name."""

from __future__ import annotations

from razordeploy.compress.distill.connectors.base import BaseConnector
from razordeploy.compress.distill.connectors.byot import BYOTConnector
from razordeploy.compress.distill.connectors.conv_module import ConvModuleConnector, NormConnector
from razordeploy.compress.distill.connectors.crd import CRDConnector
from razordeploy.compress.distill.connectors.factor_transfer import Paraphraser, Translator
from razordeploy.compress.distill.connectors.fbkd import FBKDStudentConnector, FBKDTeacherConnector
from razordeploy.compress.distill.connectors.mgd import MGDConnector
from razordeploy.compress.distill.connectors.ofd import OFDTeacherConnector
from razordeploy.compress.distill.connectors.torch_nn import TorchFunctionalConnector, TorchNNConnector

CONNECTORS: dict[str, type[BaseConnector]] = {
    "BYOTConnector": BYOTConnector,
    "CRDConnector": CRDConnector,
    "ConvModuleConnector": ConvModuleConnector,
    "FBKDStudentConnector": FBKDStudentConnector,
    "FBKDTeacherConnector": FBKDTeacherConnector,
    "MGDConnector": MGDConnector,
    "NormConnector": NormConnector,
    "OFDTeacherConnector": OFDTeacherConnector,
    "Paraphraser": Paraphraser,
    "TorchFunctionalConnector": TorchFunctionalConnector,
    "TorchNNConnector": TorchNNConnector,
    "Translator": Translator,
}
