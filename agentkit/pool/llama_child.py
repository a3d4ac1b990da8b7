"""The child process of a `Llama` slot: llama.cpp's HTTP server with one model on loopback.

It gets one request with `path`, `name`, `makes`, `context`, `parallel` and `threads`.  Once the
model is loaded it answers with `url` and `key`.  It ends when its standard input ends.
"""

from __future__ import annotations

import secrets
import sys
from typing import Any

from agentkit.pool.parent_watch import bind_to_parent


def main() -> None:
    """Serve until the parent is gone."""
    requests, answer = bind_to_parent(int(sys.argv[1]))
    settings = next(requests)
    key = secrets.token_hex(16)
    server = _serve(settings, key)
    answer({"id": settings["id"], "url": server.listening_address, "key": key})
    for _ in requests:  # blocks until the parent has closed the pipe
        pass


def _serve(settings: dict[str, Any], key: str) -> Any:
    """Start llama.cpp's server and return it; it runs in a thread of its own."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = settings["path"]
    params.model_alias = {settings["name"]}
    params.hostnames = ["127.0.0.1"]
    params.port = 0  # any free port
    params.api_keys = [key]
    params.n_parallel = settings["parallel"]
    params.n_ctx = settings["parallel"] * settings["context"]  # shared by the parallel requests
    params.cpuparams.n_threads = settings["threads"]
    params.cpuparams_batch.n_threads = settings["threads"]
    params.embedding = settings["makes"] == "embedding"
    # With flash attention the last bits depend on how much of a prompt was still in the cache, and
    # sometimes another token wins.  Answers must not depend on earlier requests.
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    params.fit_params = False  # it would shorten the context if memory is scarce
    params.cache_ram_mib = 0
    params.verbosity = 0
    params.ui = False
    params.endpoint_slots = False  # this route shows the prompts of other requests
    params.cors_origins = "http://127.0.0.1"
    return xllamacpp.Server(params)


if __name__ == "__main__":
    main()
