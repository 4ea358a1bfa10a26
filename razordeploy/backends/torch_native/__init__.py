"""int8 through PyTorch's own compiler: AOTInductor packages with oneDNN kernels, for x86 CPUs."""
