// The x402 project's own JavaScript client: node x402-client.mjs URL RPC KEY TOKEN CHAIN CALLS [refund]
// It buys CALLS times by POST and prints one line of JSON for each answer, and one for the refund.
import { x402Client, wrapFetchWithPayment } from "@x402/fetch";
import { BatchSettlementEvmScheme } from "@x402/evm/batch-settlement/client";
import { createPublicClient, http } from "viem";
import { privateKeyToAccount } from "viem/accounts";

const [url, rpc, key, token, chain, calls, refund] = process.argv.slice(2);
const network = `eip155:${chain}`;
const account = privateKeyToAccount(key);
const reader = createPublicClient({ transport: http(rpc) });
const signer = {
  address: account.address,
  signTypedData: (message) => account.signTypedData(message),
  readContract: (call) => reader.readContract(call),
};
const scheme = new BatchSettlementEvmScheme(signer, { depositPolicy: { depositMultiplier: 30 } });
const client = new x402Client().register(network, scheme);
client.setSpendControls?.({
  allowedAssets: [{ asset: token, network, maxAmountPerPayment: "10000000" }],
});
const paid = wrapFetchWithPayment(fetch, client);
const say = (line) => console.log(JSON.stringify(line));
for (let n = 0; n < Number(calls); n++) {
  const answer = await paid(url, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ ask: n }),
  });
  const header = answer.headers.get("payment-response");
  const told = header ? JSON.parse(Buffer.from(header, "base64").toString()) : null;
  say({ status: answer.status, charged: told?.extra?.chargedAmount ?? null, body: await answer.text() });
}
if (refund) {
  const back = await scheme.refund(url).catch((error) => ({ success: false, amount: String(error) }));
  say({ refunded: back.success, amount: back.amount });
}
