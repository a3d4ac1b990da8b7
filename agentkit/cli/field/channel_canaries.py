"""The canaries of a channel's life: contract, deposit, call, crash, claim, refund, withdrawal."""

from __future__ import annotations

from agentkit.artifacts import Text
from agentkit.cli.field import buyer
from agentkit.cli.field.canary import CannotTry, expect
from agentkit.cli.field.ground import Ground
from agentkit.cli.field.stall import CALL, DEPOSIT, Stall
from agentkit.journal import records as r
from agentkit.market.carrying import carry
from agentkit.money import Money
from agentkit.payments.channels.agreement import disagreements, questions
from agentkit.payments.channels.contract import unsettled_on
from agentkit.runtime.result import RunResult


async def contract(ground: Ground) -> str:
    """Compare the canonical contract's answers with what we compute."""
    asked = questions(ground.network, ground.parts.signer.address, ground.stall.payee)
    found = await disagreements(ground.parts.chain, asked)
    expect(not found, "; ".join(found))
    return f"{len(asked)} answers of the contract are what we compute"


async def deposit(ground: Ground) -> str:
    """Open a channel by the first call, whose deposit the facilitator draws."""
    ground.need("contract")
    # What an earlier field run may have left.
    await _finish_call(ground, ground.stall)
    await _take_back(ground, ground.stall)
    before = await ground.wealth()
    ground.stall.at_most = DEPOSIT
    try:
        result = await ground.purse.buy(ground.stall.client, DEPOSIT)
    finally:
        ground.stall.at_most = CALL
    _check_paid(result, ground.stall)
    lane = await ground.lane(ground.stall)

    async def balance() -> int:
        return (await ground.on_chain(lane)).balance

    await ground.becomes(balance, DEPOSIT, "the channel's balance")
    await ground.becomes(ground.wealth, before - DEPOSIT, "the wallet's balance")
    amount = Money(DEPOSIT, ground.network.currency)
    return f"deposited {amount} into channel 0x{lane.channel}"


async def call(ground: Ground) -> str:
    """Buy a call by a voucher alone: nothing is sent to the chain."""
    ground.need("deposit")
    before, lane = await ground.wealth(), await ground.lane(ground.stall)
    result = await ground.purse.buy(ground.stall.client, CALL)
    _check_paid(result, ground.stall)
    charged = (await ground.lane(ground.stall)).charged - lane.charged
    expect(charged == CALL, f"{charged} base units were charged, and {CALL} are the price")
    expect(await ground.wealth() == before, "the wallet's balance changed by a call")
    return "paid one call by a voucher, without a transaction"


async def crash(ground: Ground) -> str:
    """Kill the process that buys while its request is at work, and go on with its run."""
    ground.need("deposit")
    ground.purse.set_aside(CALL)
    stall, works = ground.stall, ground.stall.works
    lane = await ground.lane(stall)
    known = {run.run for run in await _runs(ground)}
    stall.reached.clear()
    stall.gate.clear()
    try:
        process = await buyer.start(stall, ground.config)
        await buyer.kill_in_call(process, stall)
    finally:
        stall.gate.set()
    left = [run.run for run in await _runs(ground) if run.run not in known]
    expect(len(left) == 1, f"the killed process left {len(left)} runs, and one is expected")
    result = await ground.purse.resume(left[0], stall.client)
    _check_paid(result, stall)
    worked = stall.works - works
    expect(worked == 1, f"the seller worked {worked} times for one call")
    charged = (await ground.lane(stall)).charged - lane.charged
    expect(charged == CALL, f"{charged} base units were charged for one call of {CALL}")
    return f"killed the buyer in its call and resumed run {left[0]}: one answer, charged once"


async def claim(ground: Ground) -> str:
    """Have the seller claim what was charged, and be paid out."""
    ground.need("deposit")
    stall, lane = ground.stall, await ground.lane(ground.stall)
    state = await ground.on_chain(lane)
    # A run that was killed may have left claims behind that nobody had paid out.
    ever, settled = await unsettled_on(ground.parts.chain, stall.payee, ground.network.token)
    owed = lane.charged - state.total_claimed + ever - settled
    before = await ground.wealth(stall.payee)
    await stall.claiming.claim_all()

    async def claimed() -> int:
        return (await ground.on_chain(lane)).total_claimed

    async def earned() -> int:
        return await ground.wealth(stall.payee)

    await ground.becomes(claimed, lane.charged, "what is claimed on the channel")
    await ground.becomes(earned, before + owed, "the seller's balance")
    return f"{Money(owed, ground.network.currency)} reached the seller {stall.payee}"


async def refund(ground: Ground) -> str:
    """Ask the seller for what the channel has left, and get it back on the chain."""
    ground.need("deposit")
    lane, before = await ground.lane(ground.stall), await ground.wealth()
    rest = (await ground.on_chain(lane)).balance - lane.charged
    await _take_back(ground, ground.stall)
    await ground.becomes(ground.wealth, before + rest, "the wallet's balance")
    return f"{Money(rest, ground.network.currency)} came back from the channel"


async def withdrawal(ground: Ground) -> str:
    """Take a deposit back from a seller that does not answer: begin it, or finish it."""
    ground.need("contract")
    await ground.need_gas("a withdrawal")
    silent = ground.silent
    await _finish_call(ground, silent)
    if not await ground.lanes(silent):
        silent.at_most = DEPOSIT
        result = await ground.purse.buy(silent.client, DEPOSIT)
        _check_paid(result, silent)
    lane, before = await ground.lane(silent), await ground.wealth()
    rest = (await ground.on_chain(lane)).unclaimed
    for message in await ground.lanes_rail.leave(silent.payee):
        outcome = await ground.lanes_rail.insist(message)
        if outcome != "closed":
            raise CannotTry(f"it is begun and {outcome}; run `agentkit field` again then")
    await ground.becomes(ground.wealth, before + rest, "the wallet's balance")
    return f"{Money(rest, ground.network.currency)} came back from a seller that is silent"


# -- inside --------------------------------------------------------------------------------------


async def _finish_call(ground: Ground, stall: Stall) -> None:
    """Go on with a call that a field run was in when it died: its channel is busy until then."""
    for lane in await ground.lanes(stall):
        run = await ground.run_on(lane)
        if run:
            stall.at_most = lane.at_most
            try:
                await ground.purse.resume(run, stall.client)
            finally:
                stall.at_most = CALL


async def _take_back(ground: Ground, stall: Stall) -> None:
    """Have a stall refund all that our channels with it have left."""
    rail, client = ground.lanes_rail, stall.client
    for message in await rail.leave(stall.payee):
        await carry({client.name: client}, rail, message, seconds=300.0)
    left = await ground.lanes(stall)
    expect(not left, f"{len(left)} channels are still open after their refund")


async def _runs(ground: Ground) -> list[r.Run]:
    return await ground.parts.journal.commit(lambda tx: tx.every(r.Run))


def _check_paid(result: RunResult, stall: Stall) -> None:
    """Raise Mistaken unless a run has the stall's newest answer, paid once at its price."""
    amounts = [(receipt.standing, receipt.amount.units) for receipt in result.receipts]
    expect(amounts == [("paid", CALL)], f"the receipts say {amounts}")
    answer = result["say"]
    expected = f"answer {stall.works}"
    expect(isinstance(answer, Text) and answer.text == expected, "the answer is another one")
