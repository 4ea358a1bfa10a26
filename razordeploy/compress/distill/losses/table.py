"""The losses that a recipe may name."""

from __future__ import annotations

from torch import nn

from razordeploy.compress.distill.losses.ab import ABLoss
from razordeploy.compress.distill.losses.at import ATLoss
from razordeploy.compress.distill.losses.crd import CRDLoss
from razordeploy.compress.distill.losses.cross_entropy import CrossEntropyLoss, KDSoftCELoss
from razordeploy.compress.distill.losses.cwd import ChannelWiseDivergence
from razordeploy.compress.distill.losses.dafl import ActivationLoss, InformationEntropyLoss, OnehotLikeLoss
from razordeploy.compress.distill.losses.dist import DISTLoss
from razordeploy.compress.distill.losses.distance import L1Loss, L2Loss
from razordeploy.compress.distill.losses.dkd import DKDLoss
from razordeploy.compress.distill.losses.fbkd import FBKDLoss
from razordeploy.compress.distill.losses.ft import FTLoss
from razordeploy.compress.distill.losses.kl_divergence import KLDivergence
from razordeploy.compress.distill.losses.meal import DiscriminatorLoss, MEALLoss, MultiTeacherSoftCELoss
from razordeploy.compress.distill.losses.mgd import MGDLoss
from razordeploy.compress.distill.losses.ofd import OFDLoss
from razordeploy.compress.distill.losses.pkd import PKDLoss
from razordeploy.compress.distill.losses.rkd import AngleWiseRKD, DistanceWiseRKD
from razordeploy.compress.distill.losses.wsld import WSLD

LOSSES: dict[str, type[nn.Module]] = {
    "ABLoss": ABLoss,
    "ATLoss": ATLoss,
    "ActivationLoss": ActivationLoss,
    "AngleWiseRKD": AngleWiseRKD,
    "CRDLoss": CRDLoss,
    "ChannelWiseDivergence": ChannelWiseDivergence,
    "CrossEntropyLoss": CrossEntropyLoss,
    "DISTLoss": DISTLoss,
    "DKDLoss": DKDLoss,
    "DiscriminatorLoss": DiscriminatorLoss,
    "DistanceWiseRKD": DistanceWiseRKD,
    "FBKDLoss": FBKDLoss,
    "FTLoss": FTLoss,
    "InformationEntropyLoss": InformationEntropyLoss,
    "KDSoftCELoss": KDSoftCELoss,
    "KLDivergence": KLDivergence,
    "L1Loss": L1Loss,
    "L2Loss": L2Loss,
    "MEALLoss": MEALLoss,
    "MGDLoss": MGDLoss,
    "MultiTeacherSoftCELoss": MultiTeacherSoftCELoss,
    "OFDLoss": OFDLoss,
    "OnehotLikeLoss": OnehotLikeLoss,
    "PKDLoss": PKDLoss,
    "WSLD": WSLD,
}
