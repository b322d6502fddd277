"""A Slurm of one node for the tests that are marked `slurm`; no other test run starts one."""
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from one_node import OneNode, why_not  # noqa: E402


def pytest_collection_modifyitems(config, items):
    if config.option.markexpr != "slurm":
        for item in items:
            if item.get_closest_marker("slurm"):
                item.add_marker(pytest.mark.skip(reason="starts a Slurm here: pytest -m slurm tests/cluster"))


@pytest.fixture(scope="session")
def node(tmp_path_factory):
    if reason := why_not():
        pytest.skip(reason)
    with OneNode(tmp_path_factory.mktemp("slurm")) as node, pytest.MonkeyPatch.context() as patch:
        for name, value in node.environment.items():
            patch.setenv(name, value)
        yield node
