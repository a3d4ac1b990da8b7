"""What paying costs, how fast it is and what goes wrong with it; every figure with its reference.

    python benchmarks/payments.py --json

Runs the parts in `benchmarks/paying/` one after the other, each in a process of its own; any of
them can be run alone.  It takes some minutes and needs what `make install-dev` installs.
"""

from __future__ import annotations

from typing import Any

from parts import run

PARTS = (
    "gas",
    "channel_gas",
    "batch_settlement",
    "vouchers",
    "throughput",
    "latency",
    "once",
    "crashes",
)


def lines(figures: dict[str, Any]) -> list[str]:
    """Return the figures that have limits, one a line."""
    channel, coins = figures["channel_gas_per_task"], figures["coins_held"]
    one, escrow = figures["gas_of_one"], figures["escrow_gas"]
    x402, deployed = figures["batch_settlement_gas"], figures["batch_settlement_deployed"]
    ratio, rate, faults = (
        figures["voucher_ratio"],
        figures["paid_tasks_vs_x402"],
        figures["faults"],
    )
    added, commit = figures["latency"]["added_ms"], figures["latency"]["commit_ms"]
    return [
        f"gas per task   channel {channel['10']} at 10 tasks, {channel['1000']} at 1,000;"
        f" x402 {one['x402']}, transfer {one['transfer']}",
        f"coins held     payer {coins['payer']}, seller {coins['seller']}",
        f"escrow gas     {escrow['job']} a job, {escrow['batched']} in batches of 10",
        f"x402 channel   {x402['deposit_first']} a deposit, {x402['claim_1']} a claim of one,"
        f" {x402['claim_10']} of ten; deployed {deployed['deposit_first']}, {deployed['claim_1']},"
        f" {deployed['claim_10']}",
        f"vouchers       signed at {ratio['sign']:.2f} and verified at {ratio['verify']:.2f}"
        " of libsecp256k1 alone",
        f"paid tasks     {rate['ratio']:.1f} times stock x402 exact"
        f" ({rate['channel_per_s']:.0f} and {rate['x402_per_s']:.0f} a second)",
        f"latency        being paid adds {added['p50']:.2f} ms at the median, {added['p99']:.2f} at"
        f" p99; one commit alone takes {commit['p50']:.2f} and {commit['p99']:.2f}",
        *crash_lines(figures["crashes"]),
        f"faults         {faults['paid_once']} of {faults['scenarios']} paid each task once; the"
        f" naive payer paid too often in {faults['control_overpaid']} of {faults['controls']}",
    ]


def crash_lines(crashes: dict[str, Any]) -> list[str]:
    """Return what went wrong under kills, by payer."""
    node, server, files = (
        crashes[name] for name in ("our_node", "stock_server", "stock_client_on_files")
    )
    payers = ("python", "javascript", "ours")
    rows = [(name, node[name]) for name in payers]
    told = ", ".join(
        f"{name} {row['charged_twice']} and {row['delivered_unpaid']} of {row['calls']}"
        for name, row in rows
    )
    return [
        f"killed         {sum(node['kills'].values())} times at our node, charged twice and"
        f" delivered unpaid: {told}; {node['unclaimable_units']} units unclaimable",
        f"lost answers   {server['lost']} at a stock server: {server['charged_not_received']}"
        f" charged, not received; {server['bought_again_unasked']} bought again unasked",
        f"beside it      the stock client on files was charged twice {files['charged_twice']} times"
        f" by {files['kills']} kills",
    ]


if __name__ == "__main__":
    run(__doc__ or "", "paying", PARTS, lines)
