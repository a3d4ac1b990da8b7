// What the x402 project's own code makes of signed offers and a receipt: JSON on stdin, JSON on stdout.
// {challenge, settled, payer, key} -> who signed each, whether they match, and the same signed by `key`.
import {
  createOfferEIP712,
  createReceiptEIP712,
  decodeSignedOffers,
  extractOffersFromPaymentRequired,
  extractReceiptFromResponse,
  findAcceptsObjectFromSignedOffer,
  verifyOfferSignatureEIP712,
  verifyReceiptMatchesOffer,
  verifyReceiptSignatureEIP712,
} from "@x402/extensions/offer-receipt";
import { privateKeyToAccount } from "viem/accounts";

let text = "";
for await (const part of process.stdin) text += part;
const { challenge, settled, payer, key } = JSON.parse(text);
const offers = extractOffersFromPaymentRequired(challenge);
const receipt = extractReceiptFromResponse(
  new Response("", { headers: { "PAYMENT-RESPONSE": settled } }),
);
const signer = (of) => of.signer.toLowerCase();
const account = privateKeyToAccount(key);
const sign = (message) => account.signTypedData(message);
const decoded = decodeSignedOffers(offers);
const first = challenge.accepts[0];
console.log(
  JSON.stringify({
    offers: await Promise.all(offers.map(async (o) => signer(await verifyOfferSignatureEIP712(o)))),
    found: decoded.map((o) => findAcceptsObjectFromSignedOffer(o, challenge.accepts)?.scheme),
    receipt: signer(await verifyReceiptSignatureEIP712(receipt)),
    matches: decoded.map((o) => verifyReceiptMatchesOffer(receipt, o, [payer])),
    offer: await createOfferEIP712(
      decoded[0].resourceUrl,
      { ...first, acceptIndex: 0, offerValiditySeconds: 60 },
      sign,
    ),
    their_receipt: await createReceiptEIP712(
      { resourceUrl: decoded[0].resourceUrl, payer, network: first.network },
      sign,
    ),
  }),
);
