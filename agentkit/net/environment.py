"""What child processes inherit of our environment: what they need, and no secret."""

from __future__ import annotations

import os
import sys
import sysconfig
from pathlib import Path

NEEDED = frozenset(
    {
        "PATH",
        "HOME",
        "USER",
        "LOGNAME",
        "TMPDIR",
        "TZ",
        "LANG",
        "LANGUAGE",
        "VIRTUAL_ENV",
        "LD_LIBRARY_PATH",
        "DYLD_LIBRARY_PATH",
        "XDG_CACHE_HOME",
        "XDG_CONFIG_HOME",
        "XDG_DATA_HOME",
        "XDG_RUNTIME_DIR",
        "NO_COLOR",
        # How Python and its libraries run.
        "PYTHONPATH",
        "PYTHONHOME",
        "PYTHONUTF8",
        "PYTHONIOENCODING",
        "PYTHONUNBUFFERED",
        "PYTHONDONTWRITEBYTECODE",
        "PYTHONPYCACHEPREFIX",
        "PYTHONNOUSERSITE",
        "PYTHONUSERBASE",
        "PYTHONHASHSEED",
        "PYTHONWARNINGS",
        "OMP_NUM_THREADS",
        "OMP_WAIT_POLICY",
        "OPENBLAS_NUM_THREADS",
        "MKL_NUM_THREADS",
        # Whose certificates count.
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "REQUESTS_CA_BUNDLE",
        "CURL_CA_BUNDLE",
        # Folders and files of ours; what they hold is as safe as their mode.
        "AGENTKIT_CONFIG",
        "AGENTKIT_HOME",
        "AGENTKIT_MODELS",
        "AGENTKIT_NETWORK",
        "AGENTKIT_TRUST",
    }
)
"""The variables that every child gets, with those that begin with `LC_`."""

DOWNLOADING = frozenset({"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"})
"""What a child that fetches models gets too, in either case, with pip's own (`PIP_`).

They may hold the password of a proxy or of a package index, which only such a child needs.
"""


def child_environment(*, downloads: bool = False, **more: str) -> dict[str, str]:
    """Return the environment of a child process; nothing that is not named here is passed on.

    So a passphrase or an API key of ours is in no `/proc/PID/environ` of a child.  `downloads` adds
    what fetching models needs; `more` adds and replaces.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in NEEDED
        or name.startswith("LC_")
        or (downloads and (name.upper() in DOWNLOADING or name.startswith("PIP_")))
    }
    return kept | more


_ROOT = str(Path(__file__).resolve().parents[2])
_IS_INSTALLED = sysconfig.get_path("purelib") == _ROOT  # then a child finds us by itself


def package_path() -> str:
    """Return a PYTHONPATH by which a child finds this package, from a checkout too."""
    paths = ("" if _IS_INSTALLED else _ROOT, os.environ.get("PYTHONPATH", ""))
    return os.pathsep.join(filter(None, paths))


def import_path() -> str:
    """Return our `sys.path` as a PYTHONPATH, for a child that is started in another folder."""
    return os.pathsep.join(filter(None, sys.path))
