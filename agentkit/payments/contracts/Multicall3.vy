# pragma version 0.4.3
# pragma evm-version cancun
"""
@title The two functions of Multicall3 that x402 facilitators and viem read with
@license Apache-2.0
@notice For test chains, at 0xcA11bde05977b3631167028862bE2a173976CA11: many calls in one eth_call.
    The SDKs of x402 call tryAggregate, viem's `multicall` calls aggregate3.
@dev Clean room: written from the published ABI.  Bounds are ours: 64 calls of 2 KiB, answers of
    1 KiB, of which longer ones lose the end; the real contract has none.
"""

struct Call:
    target: address
    callData: Bytes[2048]

struct Call3:
    target: address
    allowFailure: bool
    callData: Bytes[2048]

struct Result:
    success: bool
    returnData: Bytes[1024]

MOST_CALLS: constant(uint256) = 64


@payable
@external
def tryAggregate(
    requireSuccess: bool, calls: DynArray[Call, MOST_CALLS]
) -> DynArray[Result, MOST_CALLS]:
    results: DynArray[Result, MOST_CALLS] = []
    for one: Call in calls:
        result: Result = self._call(one.target, one.callData)
        assert result.success or not requireSuccess, "Multicall3: call failed"
        results.append(result)
    return results


@payable
@external
def aggregate3(calls: DynArray[Call3, MOST_CALLS]) -> DynArray[Result, MOST_CALLS]:
    results: DynArray[Result, MOST_CALLS] = []
    for one: Call3 in calls:
        result: Result = self._call(one.target, one.callData)
        assert result.success or one.allowFailure, "Multicall3: call failed"
        results.append(result)
    return results


@internal
def _call(target: address, callData: Bytes[2048]) -> Result:
    success: bool = False
    answer: Bytes[1024] = b""
    success, answer = raw_call(target, callData, max_outsize=1024, revert_on_failure=False)
    return Result(success=success, returnData=answer)
