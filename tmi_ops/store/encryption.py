"""age encryption on the client: the backup host needs public keys only, and the `age` program decrypts without tmi_ops.

pyrage reads from one file-like object and writes to another, so it runs in a thread of its own between them. It lets
other threads run meanwhile.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from tmi_ops.error_codes import Code
from tmi_ops.errors import StoreError
from tmi_ops.store.channel import Channel, ChannelClosedError
from tmi_ops.store.digest import Bytes, Digest, damaged

# age returns 8 KiB at a time when it decrypts; larger chunks suit consumers better.
PLAIN_CHUNK = 256 << 10
_NO_MATCH = "No matching keys found"
_IDENTITY_STEP = "set TMI_OPS_AGE_IDENTITY_FILE to the file with the private key (AGE-SECRET-KEY-... or OpenSSH)"


class ByteSink(Protocol):
    """Takes the bytes of one object."""

    def write(self, chunk: Bytes) -> None: ...
    def finish(self) -> Digest: ...
    def abort(self) -> None: ...


class EncryptingSink:
    """A ByteSink that encrypts for `recipients` and passes the result on to `sink`."""

    def __init__(self, sink: ByteSink, recipients: Sequence[str]) -> None:
        self._sink = sink
        self._recipients = parse_recipients(recipients)
        self._channel = Channel()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._encrypt, name="encrypt", daemon=True)
        self._thread.start()

    def write(self, chunk: Bytes) -> None:
        if not chunk:
            return
        try:
            self._channel.put(bytes(chunk))
        except ChannelClosedError:
            self._thread.join()
            raise self._failure or StoreError("Encryption was stopped.") from None

    def finish(self) -> Digest:
        self._channel.end()
        self._thread.join()
        if self._failure is not None:
            raise self._failure
        return self._sink.finish()

    def abort(self) -> None:
        self._channel.abandon()
        self._thread.join()
        self._sink.abort()

    def _encrypt(self) -> None:
        import pyrage

        plain, stored = _Reader(self._channel), _Writer(self._sink)
        try:
            pyrage.encrypt_io(plain, stored, self._recipients)
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that waits for us
            self._failure = stored.failure or error
        else:
            # It flushes its last buffer where age can no longer report an error.
            self._failure = stored.failure
        finally:
            if self._failure is not None:
                self._channel.abandon()


def decrypted(chunks: Iterator[bytes], identities: Sequence[Any], key: str) -> Iterator[bytes]:
    """Yield the plain bytes of an age file.

    Args:
        chunks: its stored bytes; read from another thread, one chunk at a time.
        identities: from `read_identities`.
        key: the object's name, for messages.

    Raises:
        StoreError: none of the identities decrypts it.
        IntegrityError: it is incomplete, altered, or not an age file.
    """
    work = _Decryption(chunks, identities, key)
    try:
        yield from work.plain_chunks()
    finally:
        work.stop()


def parse_recipients(recipients: Sequence[str]) -> list[Any]:
    """Parse age (`age1...`) or OpenSSH public keys.

    Raises:
        StoreError: one is neither.
    """
    import pyrage

    parsed = []
    for recipient in recipients:
        try:
            kind = pyrage.ssh if recipient.startswith("ssh-") else pyrage.x25519
            parsed.append(kind.Recipient.from_str(recipient))
        except pyrage.RecipientError as error:
            raise StoreError(
                f"TMI_OPS_AGE_RECIPIENTS: {recipient[:12]}... is not a public age key ({error}).",
                hint="create a key pair with `age-keygen -o key.txt` and set the public key it prints (age1...)",
            ) from None
    return parsed


def read_identities(file: Path | None) -> list[Any]:
    """Read the private keys of an age identity file or of an unencrypted OpenSSH key file.

    Raises:
        StoreError: the file does not exist, or holds no readable key.
    """
    import pyrage

    if file is None:
        raise StoreError(
            "This backup is encrypted and no private key is configured.", hint=_IDENTITY_STEP, code=Code.PRIVATE_KEY
        )
    try:
        content = file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not a text file"
        raise StoreError(
            f"The identity file {file} cannot be read: {reason}.", hint=_IDENTITY_STEP, code=Code.PRIVATE_KEY
        ) from None
    try:
        if content.startswith("-----BEGIN"):
            return [pyrage.ssh.Identity.from_buffer(content.encode())]
        lines = [line.strip() for line in content.splitlines()]
        keys = [line for line in lines if line and not line.startswith("#")]
        identities = [pyrage.x25519.Identity.from_str(key) for key in keys]
    except pyrage.IdentityError:
        # pyrage's message may quote the key.
        raise StoreError(
            f"The identity file {file} contains no private age key.", hint=_IDENTITY_STEP, code=Code.PRIVATE_KEY
        ) from None
    if not identities:
        raise StoreError(f"The identity file {file} is empty.", hint=_IDENTITY_STEP, code=Code.PRIVATE_KEY)
    return identities


class _Decryption:
    """Runs age in a thread between the stored chunks and the consumer of the plain ones."""

    def __init__(self, chunks: Iterator[bytes], identities: Sequence[Any], key: str) -> None:
        self._source = _ChunkReader(chunks)
        self._identities = list(identities)
        self._key = key
        self._channel = Channel()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._decrypt, name="decrypt", daemon=True)
        self._thread.start()

    def plain_chunks(self) -> Iterator[bytes]:
        while (chunk := self._channel.get()) is not None:
            yield chunk
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        self._channel.abandon()
        self._thread.join()

    def _decrypt(self) -> None:
        import pyrage

        plain = _GatheringWriter(self._channel)
        try:
            pyrage.decrypt_io(self._source, plain, self._identities)
            plain.flush_all()
        except ChannelClosedError:
            pass
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that waits for us
            self._failure = self._source.failure or self._explained(error)
        finally:
            self._source.close()
            self._channel.end()

    def _explained(self, error: BaseException) -> BaseException:
        if _NO_MATCH in str(error):
            return StoreError(
                f"{self._key} is encrypted for other keys than those in the identity file.",
                hint="use the private key of one of the recipients that the backup's manifest lists",
                code=Code.PRIVATE_KEY,
            )
        if isinstance(error, Exception):
            return damaged(f"{self._key} cannot be decrypted ({error})")
        return error


class _Reader:
    """The input of encrypt_io: a channel."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._rest = memoryview(b"")

    def read(self, size: int = -1) -> bytes:
        if not self._rest:
            self._rest = memoryview(self._channel.get() or b"")
        piece = self._rest[:size]
        self._rest = self._rest[size:]
        return bytes(piece)


class _ChunkReader:
    """The input of decrypt_io: an iterator. Keeps the failure that pyrage would turn into text."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = memoryview(b"")
        self.failure: BaseException | None = None

    def read(self, size: int = -1) -> bytes:
        try:
            if not self._rest:
                self._rest = memoryview(next(self._chunks, b""))
        except BaseException as error:
            self.failure = error
            raise
        piece = self._rest[:size]
        self._rest = self._rest[size:]
        return bytes(piece)

    def close(self) -> None:
        close = getattr(self._chunks, "close", None)
        if close is not None:
            close()


class _Writer:
    """The output of encrypt_io: a sink. Keeps the failure that pyrage would turn into text."""

    def __init__(self, sink: ByteSink) -> None:
        self._sink = sink
        self.failure: BaseException | None = None

    def write(self, chunk: bytes) -> int:
        try:
            self._sink.write(chunk)
        except BaseException as error:
            self.failure = error
            raise
        return len(chunk)

    def flush(self) -> None:
        pass


class _GatheringWriter:
    """The output of decrypt_io: a channel, in chunks of `PLAIN_CHUNK` or more."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._gathered = bytearray()

    def write(self, chunk: bytes) -> int:
        self._gathered += chunk
        if len(self._gathered) >= PLAIN_CHUNK:
            self.flush_all()
        return len(chunk)

    def flush(self) -> None:
        pass

    def flush_all(self) -> None:
        if self._gathered:
            self._channel.put(bytes(self._gathered))
            self._gathered = bytearray()
