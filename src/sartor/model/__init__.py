"""Loading models and adapters safely, batches as tensors, attention, kernels, LM head and loss."""
