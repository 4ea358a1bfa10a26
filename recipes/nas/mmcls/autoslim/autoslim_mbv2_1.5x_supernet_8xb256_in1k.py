"""AutoSlim: a supernet of MobileNetV2 x 1.5, in twelfths of every width.

Published by mmrazor for subnets of it: top-1 74.23 with 530 M, 72.73 with 320 M, 71.4 with 220 M multiply-adds.
"""

_base_ = ["../../_base_/autoslim_mbv2.py"]

_fc = dict(type="ModuleOutputs", source="head.fc")
_in_place = dict(
    student_recorders=dict(fc=_fc),
    teacher_recorders=dict(fc=_fc),
    distill_losses=dict(loss_kl=dict(type="KLDivergence", tau=1, loss_weight=1)),
    loss_forward_mappings=dict(
        loss_kl=dict(preds_S=dict(recorder="fc", from_student=True), preds_T=dict(recorder="fc", from_student=False))
    ),
)
model = dict(
    type="AutoSlim",
    num_random_samples=2,
    architecture=_base_.supernet,
    distiller=_in_place,
    mutator=dict(
        type="OneShotChannelMutator",
        channel_unit_cfg=dict(
            type="OneShotMutableChannelUnit",
            default_args=dict(candidate_choices=[i / 12 for i in range(2, 13)], choice_mode="ratio", divisor=8),
        ),
        parse_cfg=dict(type="ChannelAnalyzer", demo_input=(1, 3, 224, 224)),
    ),
)
model_wrapper_cfg = dict(type="mmrazor.AutoSlimDDP", broadcast_buffers=False, find_unused_parameters=True)
param_scheduler = dict(end=50)
train_cfg = dict(max_epochs=50)
