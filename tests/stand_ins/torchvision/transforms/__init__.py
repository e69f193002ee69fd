"""See torchvision."""
