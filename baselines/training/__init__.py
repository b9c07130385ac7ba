"""The training loop, its losses and the fine-tuning stages."""
