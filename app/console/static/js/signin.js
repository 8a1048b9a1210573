/** Sign-in at the issuer of the server's tokens: authorization code with PKCE (RFC 7636), all in this tab. */

import { keepKey, ROOT } from "./api.js";

const { issuer, client, scope, audience } = document.documentElement.dataset;
const STARTED = "agent-service.sign-in";
const REFRESH = "agent-service.refresh";

export const canSignIn = Boolean(issuer && client);

const redirect = new URL("console/", ROOT).href;
const base64 = (bytes) => btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
const random = () => base64(crypto.getRandomValues(new Uint8Array(32)));

/** Return the issuer's metadata (OpenID Connect Discovery 1.0). */
async function discover() {
  const answer = await fetch(`${issuer.replace(/\/$/, "")}/.well-known/openid-configuration`).catch(() => null);
  if (!answer?.ok) throw new Error(`The issuer ${issuer} does not answer this page. It must allow this origin (CORS).`);
  const found = await answer.json();
  if (found.issuer !== issuer) throw new Error(`The issuer's metadata are those of ${found.issuer}.`);
  return found;
}

/** Leave for the issuer's page; `signedIn` goes on when it leads back here. */
export async function signIn() {
  if (!crypto.subtle) throw new Error("A browser signs in on https or on this machine alone: open the console by https.");
  const { authorization_endpoint: page, token_endpoint: tokens } = await discover();
  const [verifier, state] = [random(), random()];
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(verifier)));
  sessionStorage.setItem(STARTED, JSON.stringify({ verifier, state, tokens, back: location.href }));
  const address = new URL(page);
  const asked = { response_type: "code", client_id: client, redirect_uri: redirect, scope, state, code_challenge: base64(digest), code_challenge_method: "S256" };
  for (const [name, value] of Object.entries({ ...asked, ...meant() })) address.searchParams.set(name, value);
  location.assign(address);
}

/** What the token is for: RFC 8707 where the audience is an address; `audience` for issuers that know that name. */
const meant = () => ({ audience, ...(/^https?:/.test(audience) && { resource: audience }) });

/** If the issuer has led back here, take its token and return to where the sign-in began. Rejects if that failed. */
export async function signedIn() {
  const answer = new URLSearchParams(location.search);
  if (!answer.has("state") || !(answer.has("code") || answer.has("error"))) return;
  const started = JSON.parse(sessionStorage.getItem(STARTED) ?? "null");
  sessionStorage.removeItem(STARTED);
  history.replaceState(null, "", started?.state === answer.get("state") ? started.back : redirect);
  if (started?.state !== answer.get("state") || (answer.get("iss") ?? issuer) !== issuer) throw new Error("This sign-in was not begun in this tab. Sign in again.");
  if (answer.has("error")) throw new Error(answer.get("error_description") ?? `The issuer answered ${answer.get("error")}.`);
  await take(started.tokens, { grant_type: "authorization_code", code: answer.get("code"), redirect_uri: redirect, code_verifier: started.verifier });
}

let renewing = null;

/** Get a new token for one that has expired; false if the issuer gives none. */
export function renew() {
  renewing ??= renewed().catch(() => false).finally(() => (renewing = null));
  return renewing;
}

async function renewed() {
  const token = sessionStorage.getItem(REFRESH);
  if (!token) return false;
  sessionStorage.removeItem(REFRESH);
  const { token_endpoint: tokens } = await discover();
  await take(tokens, { grant_type: "refresh_token", refresh_token: token });
  return true;
}

async function take(address, body) {
  const answer = await fetch(address, { method: "POST", body: new URLSearchParams({ ...body, client_id: client, ...meant() }) }).catch(() => null);
  const tokens = (await answer?.json().catch(() => null)) ?? {};
  if (!answer?.ok) throw new Error(tokens.error_description ?? tokens.error ?? `The issuer's address of tokens, ${address}, does not answer this page.`);
  const jwt = [tokens.access_token, tokens.id_token].find((token) => token?.split(".").length === 3);
  if (!jwt) throw new Error("The issuer gave no signed token (JWT): register this server as an API there.");
  keepKey(jwt);
  if (tokens.refresh_token) sessionStorage.setItem(REFRESH, tokens.refresh_token);
}

/** Forget the token of this tab, and what renews it. */
export function signOut() {
  sessionStorage.removeItem(REFRESH);
  keepKey("");
}
