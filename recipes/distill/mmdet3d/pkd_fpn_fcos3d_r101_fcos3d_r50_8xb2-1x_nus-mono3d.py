"""PKD on the pyramid of a monocular 3D detector (Cao et al. 2022)."""

_base_ = ["mmdet3d::fcos3d/fcos3d_r101-caffe-dcn_fpn_head-gn_8xb2-1x_nus-mono3d.py"]

_levels = range(5)
_neck = dict(type="ModuleOutputs", source="neck")
_teacher = dict(cfg_path="mmdet3d::fcos3d/fcos3d_r101-caffe-dcn_fpn_head-gn_8xb2-1x_nus-mono3d.py")


def _level(index, from_student):
    return dict(recorder="fpn", from_student=from_student, data_idx=index)


model = dict(
    _delete_=True,
    type="FpnTeacherDistill",
    architecture=dict(
        cfg_path="mmdet3d::fcos3d/fcos3d_r101-caffe-dcn_fpn_head-gn_8xb2-1x_nus-mono3d.py",
        backbone=dict(
            type="mmdet.ResNet",
            depth=50,
            num_stages=4,
            out_indices=(0, 1, 2, 3),
            frozen_stages=1,
            norm_cfg=dict(type="BN", requires_grad=False),
            norm_eval=True,
            style="pytorch",
        ),
    ),
    teacher=_teacher,
    teacher_ckpt="checkpoints/fcos3d_r101_caffe_fpn_gn-head_dcn_2x8_1x_nus-mono3d_20210715_235813-4bed5239.pth",
    distiller=dict(
        student_recorders=dict(fpn=_neck),
        teacher_recorders=dict(fpn=_neck),
        distill_losses={f"loss_fpn{i}": dict(type="PKDLoss", loss_weight=10) for i in _levels},
        loss_forward_mappings={
            f"loss_fpn{i}": dict(preds_S=_level(i, True), preds_T=_level(i, False)) for i in _levels
        },
    ),
)
val_cfg = dict(_delete_=True, type="SingleTeacherDistillValLoop")
find_unused_parameters = True
deploy = dict(backends=["openvino", "onnxruntime"], input_shape=(3, 928, 1600))
