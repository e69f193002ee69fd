"""The built-in networks. ``catalog`` lists them by name and builds them from a configuration."""
