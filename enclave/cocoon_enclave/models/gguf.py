"""Turns a GGUF file into the safetensors form that engines load: once, as reading GGUF is slow.

The result is a function of the file and of the library versions only: no time stamps, no machine names.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

LIBRARIES: Final = ("gguf", "safetensors", "tokenizers", "torch", "transformers")


def conversion_key(gguf_sha256: bytes) -> dict[str, str]:
    """What the converted files depend on: the source and the libraries that wrote them."""
    return {"gguf_sha256": gguf_sha256.hex()} | {name: version(name) for name in LIBRARIES}


def convert(gguf: Path, target: Path, *, say: Callable[[str], None]) -> None:
    """Write weights (bfloat16), tokenizer, configuration and chat template of `gguf` into the empty
    `target`.

    Raises:
        OSError, ValueError: the file cannot be read or is of an unknown architecture (transformers' words).
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TQDM_DISABLE", "1")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    quiet: Any = logging
    quiet.disable_progress_bar()
    quiet.set_verbosity_error()
    say("reading the tokenizer")
    tokenizer = AutoTokenizer.from_pretrained(
        str(gguf.parent), gguf_file=gguf.name, trust_remote_code=False
    )
    say("reading and unpacking the weights")
    model: Any = AutoModelForCausalLM.from_pretrained(
        str(gguf.parent), gguf_file=gguf.name, dtype=torch.bfloat16, trust_remote_code=False
    )
    # The weights are plain numbers now; the marks of the quantized source would make saving refuse.
    model.hf_quantizer = None
    model.is_quantized = False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    say("writing safetensors")
    model.save_pretrained(str(target), max_shard_size="100GB")
    tokenizer.save_pretrained(str(target))
    _forget_origin(target)


def _forget_origin(target: Path) -> None:
    """Remove what names the place that the source lay in; sort the keys, so that equal means equal."""
    for path in sorted(target.glob("*.json")):
        if path.name == "tokenizer.json":
            continue
        document = json.loads(path.read_text(encoding="utf-8"))
        for key in ("_name_or_path", "name_or_path", "gguf_file"):
            document.pop(key, None)
        path.write_text(json.dumps(document, indent=2, sort_keys=True) + "\n", encoding="utf-8")
