"""Fixtures: a site to render at, with a model whose frames are known."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from dailies.models.architectures.catalog import ARCHITECTURES
from helpers.render_sites import Inverse, Site
from helpers.weights import grey_checkpoint


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A site with six frames and the checkpoint of a U-Net that renders one grey."""
    site = Site(tmp_path)
    site.download(grey_checkpoint(0.5))
    yield site
    assert site.drafts() == []


@pytest.fixture
def use(site: Site, monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], Inverse]], None]:
    """Replace the downloaded network by one of a class."""

    def replace(network: Callable[[], Inverse]) -> None:
        class Test:
            ANCHOR = "nothing"

            @staticmethod
            def settings_in(_state: object) -> None:
                return None

            def __new__(cls) -> Inverse:
                return network()

        monkeypatch.setitem(ARCHITECTURES, "test", Test)
        site.download({"model_state_dict": Inverse().state_dict(), "architecture": "test"})

    return replace


@pytest.fixture
def network(use: Callable[[Callable[[], Inverse]], None]) -> Inverse:
    """The inverse in place of the downloaded network, always the same object."""
    network = Inverse()
    use(lambda: network)
    return network
