"""The harness behind the figures: ``python -m bench``. Peers run in the same process, repetitions interleaved."""
