"""Checks a password against the verifier that the server stores.

Source: RFC 5802; pg_authid has the form SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import stringprep
import unicodedata

_VERIFIER = re.compile(r"SCRAM-SHA-256\$(\d+):([^$]+)\$([^:]+):.+")


def is_password_of(verifier: str, password: str, role: str) -> bool:
    """Whether `verifier` (SCRAM or md5) was made from this password; md5 also depends on the role's name."""
    if match := _VERIFIER.fullmatch(verifier):
        iterations, salt, stored = match.groups()
        return any(
            hmac.compare_digest(_stored_key(form, base64.b64decode(salt), int(iterations)), base64.b64decode(stored))
            for form in _forms(password)
        )
    digest = hashlib.md5((password + role).encode(), usedforsecurity=False).hexdigest()
    return hmac.compare_digest(verifier, f"md5{digest}")


def _stored_key(password: str, salt: bytes, iterations: int) -> bytes:
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, iterations)
    return hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()


def _forms(password: str) -> set[str]:
    """libpq normalises a password (SASLprep, RFC 4013) if it can, and otherwise uses it unchanged."""
    mapped = (" " if stringprep.in_table_c12(one) else one for one in password if not stringprep.in_table_b1(one))
    return {password, unicodedata.normalize("NFKC", "".join(mapped))}
