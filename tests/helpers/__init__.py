"""What tests share: stores, networks, frames and whole studios; fixtures are in conftest.py."""

from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
