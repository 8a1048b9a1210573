"""A local token issuer: discovery document, keys, valid and invalid tokens."""

import asyncio
import base64
import hashlib
import hmac
import json
import time
from typing import Any, Self

import jwt
from aiohttp import web
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

AUDIENCE = "agent-service"

RSA = {name: rsa.generate_private_key(public_exponent=65537, key_size=2048) for name in ("rsa", "next", "foreign")}
EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()


def jwk(key: Any, key_id: str, algorithm: str = "RS256", **rest: str) -> dict[str, Any]:
    """Return the public part as the issuer publishes it."""
    made = jwt.get_algorithm_by_name(algorithm).to_jwk(key.public_key(), as_dict=True)
    return {**made, "kid": key_id, "use": "sig", **rest}


class Issuer:
    """``keys``: the published keys; ``down``: answer 500; ``asked``: number of requests;
    ``open``: clear it to keep requests waiting."""

    def __init__(self) -> None:
        self.keys = [
            jwk(RSA["rsa"], "rsa"),
            jwk(EC, "ec", "ES256"),
            jwk(ED, "ed", "EdDSA"),
            {
                "kty": "oct",
                "kid": "shared",
                "k": base64.urlsafe_b64encode(b"shared secret of 32 characters..").decode(),
            },
            {"kty": "something new", "kid": "new"},
            jwk(RSA["next"], "encrypting", use="enc"),
        ]
        self.about: dict[str, Any] = {}
        self.down = False
        self.open = asyncio.Event()
        self.open.set()
        self.asked = 0
        self.url = ""

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_get("/.well-known/openid-configuration", self._about)
        app.router.add_get("/keys", self._keys)
        self.add_routes(app.router)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Add what only some issuers have."""

    async def _about(self, _: web.Request) -> web.Response:
        about = {"issuer": self.url, "jwks_uri": f"{self.url}/keys", **self.about}
        return web.json_response(about, status=500 if self.down else 200)

    async def _keys(self, _: web.Request) -> web.Response:
        self.asked += 1
        await self.open.wait()
        return web.json_response({"keys": self.keys}, status=500 if self.down else 200)

    def claims(self, **changed: Any) -> dict[str, Any]:
        """Return the claims of a valid token; None omits a claim."""
        now = int(time.time())
        claims = {"iss": self.url, "aud": AUDIENCE, "sub": "ada", "iat": now, "exp": now + 600, **changed}
        return {name: value for name, value in claims.items() if value is not None}

    def token(self, key: Any = RSA["rsa"], algorithm: str = "RS256", **changed: Any) -> str:
        """Return a signed token; ``headers`` among the changes are added to its header."""
        headers = {"kid": "rsa", **changed.pop("headers", {})}
        return jwt.encode(self.claims(**changed), key, algorithm, headers=headers)

    def hostile(self) -> dict[str, str]:
        """Return invalid tokens by what is wrong with them."""
        now = int(time.time())
        public = (
            RSA["rsa"]
            .public_key()
            .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        )
        good = self.token()
        head, body, signature = good.split(".")
        other = _part(self.claims(sub="eve"))
        return {
            "no signature": f"{_part({'alg': 'none', 'kid': 'rsa'})}.{body}.",
            "none, oddly spelt": f"{_part({'alg': 'NoNe', 'kid': 'rsa'})}.{body}.{signature}",
            "signed with the public key as a secret": _hs256({"alg": "HS256", "kid": "rsa"}, body, public),
            "signed with the shared key of the set": _hs256(
                {"alg": "HS256", "kid": "shared"}, body, b"shared secret of 32 characters.."
            ),
            "an algorithm that is not allowed": self.token(algorithm="RS384"),
            "signed by another issuer under a known id": self.token(RSA["foreign"]),
            "an unknown key": self.token(RSA["foreign"], headers={"kid": "foreign"}),
            "a key id that is a path": self.token(RSA["foreign"], headers={"kid": "../../dev/null"}),
            "a key id that is an object": f"{_part({'alg': 'RS256', 'kid': {'a': 1}})}.{body}.{signature}",
            "a key in its own header": self.token(RSA["foreign"], headers={"jwk": jwk(RSA["foreign"], "rsa")}),
            "an address of keys that comes along": self.token(
                RSA["foreign"], headers={"jku": f"{self.url}/keys", "x5u": f"{self.url}/keys"}
            ),
            "a critical extension": self.token(headers={"crit": ["exp"]}),
            "a body that is not encoded": self.token(headers={"b64": False, "crit": ["b64"]}),
            "a key for encryption": self.token(RSA["next"], headers={"kid": "encrypting"}),
            "the type of another key": f"{_part({'alg': 'ES256', 'kid': 'rsa'})}.{body}.{signature}",
            "another body under its signature": f"{head}.{other}.{signature}",
            "expired": self.token(exp=now - 60),
            "without an end": self.token(exp=None),
            "an end that is no number": self.token(exp="tomorrow"),
            "not valid yet": self.token(nbf=now + 600),
            "from the future": self.token(iat=now + 600),
            "another issuer": self.token(iss="https://elsewhere.example"),
            "an issuer with a slash more": self.token(iss=f"{self.url}/"),
            "without an issuer": self.token(iss=None),
            "for another audience": self.token(aud="other-service"),
            "for others in a list": self.token(aud=["other-service", "third"]),
            "without an audience": self.token(aud=None),
            "without a subject": self.token(sub=None),
            "an empty subject": self.token(sub=" "),
            "a subject with a line break": self.token(sub="ada\nadmin"),
            "too large": self.token(rest="x" * 10_000),
            "two parts": f"{head}.{body}",
            "five parts, as if encrypted": f"{head}.{body}.{signature}.{body}.{signature}",
            "not valid JSON": "YWJj.YWJj.YWJj",
            "deep JSON": f"{base64.urlsafe_b64encode(b'[' * 3000).decode()}.{body}.{signature}",
            "not base64": "a%b.c.d",
            "dots": "..",
        }


def _part(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def _hs256(header: dict[str, str], body: str, key: bytes) -> str:
    signed = f"{_part(header)}.{body}"
    digest = hmac.digest(key, signed.encode(), hashlib.sha256)
    return f"{signed}.{base64.urlsafe_b64encode(digest).decode().rstrip('=')}"
