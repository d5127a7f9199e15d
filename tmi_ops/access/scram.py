"""Whether a password is the one a server keeps a verifier of.

Source: RFC 5802; the form SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey> is that of pg_authid.
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
    """True when `verifier` (SCRAM or md5) was made of this password; md5 depends on the role's name, too."""
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
    """libpq normalises a password (SASLprep, RFC 4013) where it can, and takes it as it is where it cannot."""
    mapped = (" " if stringprep.in_table_c12(one) else one for one in password if not stringprep.in_table_b1(one))
    return {password, unicodedata.normalize("NFKC", "".join(mapped))}
