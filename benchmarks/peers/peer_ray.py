"""Ray on this machine alone: a task for each node, object references along the edges."""

import logging
import os
from pathlib import Path
from typing import Any

import common
import ray


@ray.remote
def node(*values: int) -> int:
    return common.mixed(list(values))


def main(trial: common.Trial) -> None:
    # without this file Ray asks the network which cloud it is in, usage statistics or not
    Path("~/ray_bootstrap_config.yaml").expanduser().write_text("provider: {type: local}")
    ray.init(
        num_cpus=os.cpu_count(),
        include_dashboard=False,
        logging_level=logging.ERROR,
        object_store_memory=256 * 2**20,
        _node_ip_address="127.0.0.1",
        _temp_dir=str(trial.home / "ray"),
    )
    ray.get([node.remote() for _ in range(8)])  # the workers are up
    for _ in trial.turns:
        trial.start()
        results = list[Any]()
        for above in trial.parents:
            results.append(node.remote(*(results[p] for p in above)))
        trial.stop(ray.get(results))
    trial.report()


if __name__ == "__main__":
    main(common.Trial())
