"""An ONNX file as a torch module, so that it is captured, quantized, exported and measured as any other model."""
