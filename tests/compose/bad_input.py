"""A good adapter to spoil, and what is looked for in an error."""

from adapter_tensors import adapter_for, keyed


def good(model):
    return keyed(adapter_for(model, ["first", "second", "conv"]), alpha=2)


def assert_says(error, *words):
    message = str(error.value)
    missing = [word for word in words if str(word) not in message]
    assert not missing, f"{message!r} does not name {missing}"
