"""DARTS of second order on scikit-learn's digits: cells of two nodes, half of the data for the architecture.

Training writes the weights and, beside them, the cells that it arrived at as ``fix_subnet.yaml``.
"""

model = dict(
    type="Darts",
    architecture=dict(type="razordeploy.compress.nas.supernets.digits:darts_digits"),
    mutator=dict(type="NasMutator"),
    unroll=True,
)
data = dict(type="digits")
train_dataloader = dict(batch_size=64)
train_cfg = dict(type="DartsEpochBasedTrainLoop", max_epochs=12)
optim_wrapper = dict(
    constructor="SeparateOptimWrapperConstructor",
    architecture=dict(
        optimizer=dict(type="SGD", lr=0.1, momentum=0.9, weight_decay=3e-4), clip_grad=dict(max_norm=5, norm_type=2)
    ),
    mutator=dict(optimizer=dict(type="Adam", lr=3e-2, betas=(0.5, 0.999), weight_decay=1e-3)),
)
param_scheduler = [dict(type="CosineAnnealingLR", T_max=12, eta_min=1e-3, begin=0, end=12)]
custom_hooks = [dict(type="DumpSubnetHook", interval=1)]
default_scope = "mmengine"
checkpoint = "work_dirs/digits_darts/supernet.pth"

deploy = dict(backends=["openvino", "onnxruntime"], input_shapes=[(1, 8, 8)], max_drop=1.0)
