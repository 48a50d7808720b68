// @ts-check
// The pages of the login: passkeys, sessions, and letting a terminal in. It makes no markup
// and keeps nothing: secrets go from the form into one request.

/** @typedef {{status: number, code: string, body: any}} Answer */

const csrf = document.body.dataset.csrf ?? "";
const next = document.body.dataset.next ?? "/";

/**
 * Sends JSON to this server.
 * @param {string} path
 * @param {unknown} body
 * @returns {Promise<Answer>}
 */
async function post(path, body) {
  /** @type {Record<string, string>} */
  const headers = { "Content-Type": "application/json" };
  if (csrf) headers["X-Csrf-Token"] = csrf;
  const r = await fetch(path, { method: "POST", headers, body: JSON.stringify(body), credentials: "same-origin", cache: "no-store", redirect: "error" });
  const data = await r.json().catch(() => ({}));
  return { status: r.status, code: data.code ?? "", body: data };
}

/** An error whose text is for the person. */
class Told extends Error {}

/**
 * @param {Answer} a
 * @param {string} refused what 403 means here
 * @returns {any}
 */
function must(a, refused) {
  if (a.status < 300) return a.body;
  if (a.code === "not_fresh") throw new Told("Your login is older than five minutes. Sign in again, then repeat this.");
  if (a.code === "last_passkey") throw new Told("This is your only passkey. Add another one first.");
  if (a.code === "used") throw new Told("This statement was signed before, and is signed once. Ask again for another one.");
  if (a.code === "over") throw new Told("Its time is over, so it cannot be signed. Ask again.");
  if (a.code === "no_passkey") throw new Told("Your account has no passkey. Add one under your account, then load this page again.");
  if (a.code === "not_permitted") throw new Told("Signed, but refused: " + a.body.detail + ".");
  if (a.code === "unstated") throw new Told("Signed, but no witness has seen it yet, and nobody acts on it before. Your terminal says how it goes on.");
  switch (a.status) {
    case 401: throw new Told("You are no longer signed in. Load the page again.");
    case 403: throw new Told(refused);
    case 404: throw new Told("It is gone already. Load the page again.");
    case 429: throw new Told("Too many failed attempts came from your network. Try again in five minutes.");
    case 503: throw new Told("This could not be recorded, so it was not done. Try again; if it stays so, tell whoever runs this server.");
  }
  throw new Told("Something went wrong. The log of the server has it.");
}

/** @param {string} text */
function bytes(text) {
  const raw = atob(text.replaceAll("-", "+").replaceAll("_", "/"));
  return Uint8Array.from(raw, (c) => c.charCodeAt(0));
}

/** @param {ArrayBuffer | null} b */
function text(b) {
  if (!b) return undefined;
  let raw = "";
  for (const n of new Uint8Array(b)) raw += String.fromCharCode(n);
  return btoa(raw).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

/** @param {any[] | undefined} list */
const descriptors = (list) => list?.map((c) => ({ ...c, id: bytes(c.id) }));

/** @param {any} o the options of the server, with their bytes as text */
function options(o) {
  const k = { ...o.publicKey, challenge: bytes(o.publicKey.challenge) };
  if (k.user) k.user = { ...k.user, id: bytes(k.user.id) };
  if (k.excludeCredentials) k.excludeCredentials = descriptors(k.excludeCredentials);
  if (k.allowCredentials) k.allowCredentials = descriptors(k.allowCredentials);
  return { publicKey: k };
}

/** @param {any} c what the authenticator answered */
function answer(c) {
  const r = c.response;
  return {
    id: c.id, rawId: text(c.rawId), type: c.type, authenticatorAttachment: c.authenticatorAttachment ?? undefined,
    clientExtensionResults: c.getClientExtensionResults(),
    response: {
      clientDataJSON: text(r.clientDataJSON), attestationObject: text(r.attestationObject), transports: r.getTransports?.(),
      authenticatorData: r.attestationObject ? undefined : text(r.authenticatorData), signature: text(r.signature), userHandle: text(r.userHandle),
    },
  };
}

async function signIn() {
  const o = must(await post("/login/passkey/begin", {}), "The login was refused.");
  const c = await navigator.credentials.get(options(o));
  must(await post("/login/passkey/finish", answer(c)), "This passkey was not accepted. It may belong to no account here, or the account is disabled or locked for some minutes.");
  location.assign(next);
}

/** @param {string} secret empty for a further passkey */
async function register(secret) {
  const o = must(await post("/login/register/begin", { secret }), "These letters are not valid. Check them; they may have been used, or their 15 minutes are over.");
  const c = await navigator.credentials.create(options(o));
  must(await post("/login/register/finish", answer(c)), "The passkey was not accepted. Its letters may have been used meanwhile.");
  location.assign("/login/account");
}

/** @type {Record<string, (from: HTMLElement) => Promise<void>>} */
const acts = {
  passkey: signIn,
  add: () => register(""),
  register: (form) => register(/** @type {HTMLInputElement} */ (form.querySelector("input")).value),
  async out() {
    must(await post("/login/out", {}), "You are no longer signed in. Load the page again.");
    location.assign("/login/");
  },
  async revoke(b) {
    must(await post("/login/sessions/revoke", { id: b.dataset.id }), "The session was not ended. Load the page again.");
    location.reload();
  },
  async remove(b) {
    must(await post("/login/passkeys/remove", { id: b.dataset.id }), "The passkey was not removed. Load the page again.");
    location.reload();
  },
  async sign(b) {
    const id = b.dataset.id;
    const o = must(await post("/login/sign/begin", { id }), "You cannot sign this now. The account may be locked for some minutes.");
    const c = await navigator.credentials.get(options(o));
    const a = await post("/login/sign/finish", { id, answer: answer(c) });
    if (a.status < 300 || a.code === "not_permitted" || a.code === "unstated") { // it is signed, once
      for (const e of document.querySelectorAll("[data-sign], #sign-hint")) /** @type {HTMLElement} */ (e).hidden = true;
    }
    must(a, "This signature was not accepted. It needs a passkey of your own account that checks a PIN, a fingerprint or a face.");
    /** @type {HTMLElement} */ (document.querySelector(".done")).hidden = false;
  },
  async terminal(form) {
    const input = /** @type {HTMLInputElement} */ (form.querySelector("input"));
    must(await post("/login/cli/confirm", { user_code: input.value }), "No terminal waits with this code. Check it; a code is valid for ten minutes.");
    form.hidden = true;
    const done = /** @type {HTMLElement} */ (document.querySelector(".done"));
    done.hidden = false;
  },
};

/** @param {unknown} e */
function reason(e) {
  if (e instanceof Told) return e.message;
  if (!("credentials" in navigator)) return "This browser has no passkeys here: they need https and a browser of 2022 or later.";
  switch (e instanceof DOMException ? e.name : "") {
    case "NotAllowedError": return "No passkey was used: it was cancelled, or it took too long. Try again.";
    case "InvalidStateError": return "This device holds a passkey of your account already.";
    case "SecurityError": return "Passkeys are bound to another address than this one. Tell whoever runs this server: login.rp_id.";
    case "NotSupportedError": return "This device cannot hold a passkey with a PIN, a fingerprint or a face.";
  }
  return "The server does not answer. Try again.";
}

/** @param {HTMLElement} from */
async function run(from) {
  const act = acts[from.dataset.act ?? ""];
  const say = /** @type {HTMLElement | null} */ (document.querySelector(".say[role=alert][hidden], .say[data-own]"));
  const buttons = /** @type {HTMLButtonElement[]} */ ([...document.querySelectorAll("button")]);
  const input = from.querySelector("input");
  if (say) say.hidden = true;
  input?.removeAttribute("aria-invalid");
  for (const b of buttons) b.disabled = true;
  from.setAttribute("aria-busy", "true");
  try {
    await act(from);
  } catch (e) {
    if (say) {
      say.dataset.own = "";
      say.className = "say fail";
      say.textContent = reason(e);
      say.hidden = false;
    }
    if (input && e instanceof Told) {
      input.setAttribute("aria-invalid", "true");
    }
  } finally {
    for (const b of buttons) b.disabled = false;
    from.removeAttribute("aria-busy");
    if (say && !say.hidden) {
      (input ?? from).focus();
      input?.select(); // typing replaces what was wrong
    }
  }
}

for (const b of document.querySelectorAll("button[data-act]")) {
  b.addEventListener("click", () => run(/** @type {HTMLElement} */ (b)));
}
for (const f of document.querySelectorAll("form[data-act]")) {
  f.addEventListener("submit", (e) => {
    e.preventDefault();
    run(/** @type {HTMLElement} */ (f));
  });
}
