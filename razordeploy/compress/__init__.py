"""What makes a model smaller before it is quantized: search, pruning, distillation."""
