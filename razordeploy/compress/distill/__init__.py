"""Knowledge distillation: what is recorded, how features are made comparable, what is minimised, who trains whom."""
