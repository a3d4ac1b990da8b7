"""A server slot's child: one model behind llama.cpp's own HTTP server on a free loopback port.

Its one request has `path`, `name`, `makes`, `context`, `parallel` and `threads`.  It answers with
`url` and `key` once the model is loaded, and ends when its input does.
"""

from __future__ import annotations

import secrets
import sys
from typing import Any

from agentkit.pool.parent_watch import tie


def main() -> None:
    """Serve until the parent is gone."""
    requests, answer = tie(int(sys.argv[1]))
    settings = next(requests)
    key = secrets.token_hex(16)
    server = _serve(settings, key)
    answer({"id": settings["id"], "url": server.listening_address, "key": key})
    for _ in requests:
        pass


def _serve(settings: dict[str, Any], key: str) -> Any:
    """Without flash attention an answer does not depend on what the server was asked before.

    With it the last bits differ by how much of a prompt was still in the cache, and now and then
    another token wins.
    """
    import xllamacpp

    asked = xllamacpp.CommonParams()
    asked.model.path, asked.model_alias = settings["path"], {settings["name"]}
    asked.hostnames = ["127.0.0.1"]
    asked.port = 0
    asked.api_keys = [key]
    asked.n_parallel, asked.n_ctx = settings["parallel"], settings["parallel"] * settings["context"]
    asked.cpuparams.n_threads = asked.cpuparams_batch.n_threads = settings["threads"]
    asked.embedding = settings["makes"] == "embedding"
    asked.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    asked.fit_params = False  # it would lower the context where memory is short
    asked.cache_ram_mib = asked.verbosity = 0
    asked.ui = asked.endpoint_slots = False  # the latter shows other people's prompts
    asked.cors_origins = "http://127.0.0.1"
    return xllamacpp.Server(asked)


if __name__ == "__main__":
    main()
