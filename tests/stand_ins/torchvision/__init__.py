"""Stands in for torchvision, of which there is no CPU build on the index: spandrel imports these names for two of its
networks, which no test uses; lpips builds its own from AlexNet."""
