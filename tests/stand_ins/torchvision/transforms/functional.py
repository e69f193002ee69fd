"""See torchvision."""

InterpolationMode = normalize = rotate = None
