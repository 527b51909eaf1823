"""Other people's code loading through us: safetensors' loaders routed to ours for this process, and back."""

from .installation import Installation, install, installed, uninstall

__all__ = ["Installation", "install", "installed", "uninstall"]
