"""What every deploy config for mmdeploy's scripts shares: the plug-in, the graph, the calibration."""

custom_imports = dict(imports=["razordeploy.integrations.mmdeploy"], allow_failed_imports=False)

onnx_config = dict(
    type="onnx",
    export_params=True,
    keep_initializers_as_inputs=False,
    opset_version=13,
    save_file="end2end.onnx",
    input_names=["input"],
    output_names=["output"],
    input_shape=[224, 224],
    optimize=True,
    dynamic_axes={"input": {0: "batch"}, "output": {0: "batch"}},
)

# Images of the training data, through the pipeline of the test data. create_calib=False leaves the engine in float;
# razordeploy=dict(engine="work_dirs/my_qat") takes an engine that razordeploy's own verbs have made.
calib_config = dict(create_calib=True, calib_file="calib_data.h5", dataset_type="train", num_samples=300)
