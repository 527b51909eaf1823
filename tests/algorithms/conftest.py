"""Files of peers are written once."""

import warnings

import pytest


@pytest.fixture(scope="session")
def written(tmp_path_factory):
    """What a specimen's peer wrote, by specimen."""
    found = {}

    def write(specimen):
        if specimen.name not in found:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found[specimen.name] = specimen.write(tmp_path_factory.mktemp("adapter"))
        return found[specimen.name]

    return write
