"""Operations here are tiny: more threads make them slower, on a busy machine by far."""

import pytest
import torch


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """Five adapters for the tiny SD1.5, by name; ``d`` is for the UNet only, ``e`` for the text encoder only."""
    from adapter_files import only_keys  # here, for not all tests of this folder need diffusers
    from kohya_files import kohya_file

    folder = tmp_path_factory.mktemp("adapters")
    dtypes = {"a": torch.float32, "b": torch.bfloat16, "c": torch.float16, "d": torch.float32, "e": torch.bfloat16}
    found = {}
    for seed, (name, dtype) in enumerate(dtypes.items(), 1):
        (folder / name).mkdir()
        found[name] = kohya_file("sd15", folder / name, dtype, seed).path
    only_keys(found["d"], "lora_unet_")
    only_keys(found["e"], "lora_te_")
    return found


@pytest.fixture
def pipeline():
    from tiny_pipelines import tiny_pipeline

    return tiny_pipeline("sd15")
