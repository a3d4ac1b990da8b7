"""dask.distributed in this process: one worker on threads, messages without sockets."""

import common
from distributed import Client, LocalCluster

LOOPBACK = "127.0.0.1:0"  # its two web servers run in any case, and by default on every interface


def node(*values: int) -> int:
    return common.mixed(list(values))


def main(trial: common.Trial) -> None:
    with LocalCluster(
        n_workers=1,
        processes=False,
        dashboard_address=LOOPBACK,
        worker_dashboard_address=LOOPBACK,
    ) as cluster:
        client = Client(cluster)
        client.submit(node).result()
        for turn in trial.turns:
            names = [f"turn{turn}-node{number}" for number in range(len(trial.parents))]
            above = [[names[p] for p in numbers] for numbers in trial.parents]
            graph = {name: (node, *reads) for name, reads in zip(names, above, strict=True)}
            trial.start()
            trial.stop(list(client.get(graph, names)))
        trial.report()


if __name__ == "__main__":
    main(common.Trial())
