"""Imported first in a fresh process: lora_mmap without what its __init__ imports. torch takes seconds to start."""

import sys
import types
from pathlib import Path

package = types.ModuleType("lora_mmap")
package.__path__ = [str(Path(__file__).parents[2] / "lora_mmap")]
sys.modules["lora_mmap"] = package
